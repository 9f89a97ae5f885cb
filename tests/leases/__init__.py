"""Single flight."""
