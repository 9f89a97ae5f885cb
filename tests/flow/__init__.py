"""The rules of one call, and their drivers."""
