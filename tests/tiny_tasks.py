"""Tasks that a command can name, as ``tiny_tasks:tiny``."""

from conftest import make_tiny_task


def tiny(data_root, device, seed):
    """A task of two layers, always the same."""
    return make_tiny_task()
