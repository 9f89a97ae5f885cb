"""The list of entries, the page of each, and what may be done there."""
