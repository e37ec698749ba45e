"""What was measured of every joint action of a task."""
