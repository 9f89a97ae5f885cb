"""The example site and its stand-in for a model."""
