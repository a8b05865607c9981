"""Adapters: what talks to the world, each behind a port of saeops.ports."""
