"""The list of entries, and the page of each."""
