"""On which thread, on which connection and when the cache works."""
