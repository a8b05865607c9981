"""Feature quality: what single latents are worth."""
