"""What can be removed from a network, and how."""
