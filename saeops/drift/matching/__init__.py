"""Matching: which latent of one dictionary is which latent of another, and what labels that carries over."""
