"""What joint actions are worth, as a model of measurements tells: for tasks that have too many to measure all."""
