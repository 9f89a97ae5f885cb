"""The hot tier, on each backend."""
