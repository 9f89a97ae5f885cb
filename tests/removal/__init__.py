"""Invalidation and expiry."""
