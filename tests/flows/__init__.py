"""Tests of flows, end to end on tiny data."""
