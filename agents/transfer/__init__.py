"""Policies that are carried from some networks to others: ``python -m agents.transfer``."""
