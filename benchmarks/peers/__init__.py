"""Adapters: each builds one library's real training step."""
