"""Labelling: examples, patterns, prompts, parsing, scoring."""
