"""Tests of values that must not move."""
