"""Background tasks, on each queue."""
