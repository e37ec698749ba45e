"""Learners on a table, with exact regrets: ``python -m agents.leaderboard``."""
