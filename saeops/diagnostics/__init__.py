"""Diagnostics: reconstruction, sparsity, fidelity, nulls."""
