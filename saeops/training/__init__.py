"""Training: the loop, its schedules, dead latents, checkpoints and resume."""
