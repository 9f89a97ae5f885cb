"""The hot tier: copies on a Django cache alias, for speed only."""
