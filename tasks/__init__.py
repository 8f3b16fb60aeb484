"""What a network reads and what its quality is: one file a task."""
