"""A run of the main command, ``python train_agents.py``: what is asked for, one seed, several seeds, a table."""
