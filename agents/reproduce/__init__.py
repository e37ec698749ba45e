"""The tables of the DSFP paper: ``python -m agents.reproduce``."""
