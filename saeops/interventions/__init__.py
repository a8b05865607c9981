"""Interventions: hooks, the panel, effects with controls."""
