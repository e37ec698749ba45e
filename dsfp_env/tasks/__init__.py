"""A trained network and its images."""
