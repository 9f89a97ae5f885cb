"""What keeps the trouble of a tier away from the callers of the cache."""
