"""Sparse autoencoders: variants, kernels, the canonical form."""
