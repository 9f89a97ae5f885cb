"""Caches for libraries that ask models by themselves. Each module imports its library."""
