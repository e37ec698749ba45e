"""What was measured of some joint actions of a task that has too many for a table."""
