"""Removing entries: invalidation, at once or carried on, and what has expired."""
