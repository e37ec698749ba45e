"""Learners that other libraries bring, and what plugs them in."""
