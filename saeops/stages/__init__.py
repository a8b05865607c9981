"""Stages: one file each: read, call pure code, write, give back a reference."""
