"""Catalog: what each latent fires on, how often, and which tokens it writes."""
