"""What came of a run: files, yardsticks, statistics, tables and pictures."""
