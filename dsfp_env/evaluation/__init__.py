"""What a plan is worth: measured here, by workers, or known already."""
