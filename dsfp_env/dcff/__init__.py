"""Dynamic-coded filter fusion, the second paper: fusion, training from scratch, its published networks."""
