"""Watching a model at work: which trusted features of a dictionary fire, recorded and counted."""
