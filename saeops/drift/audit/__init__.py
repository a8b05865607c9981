"""One dictionary on two models: what is still the same, latent by latent."""
