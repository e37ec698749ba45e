"""Learners of our own."""
