"""Which filters go first."""
