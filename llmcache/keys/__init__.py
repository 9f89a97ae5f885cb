"""The canonical form of any value, and of a request; the key of a request."""
