"""What is counted: each call and each hit, written behind the callers."""
