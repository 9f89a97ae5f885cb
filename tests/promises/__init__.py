"""What README promises, whichever module keeps it."""
