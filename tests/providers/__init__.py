"""What providers say, in the dialect of each."""
