"""Learners side by side on real evaluations: ``python -m agents.compare``."""
