"""The same numbers sooner: precision, folding, kernels."""
