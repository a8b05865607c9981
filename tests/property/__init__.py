"""Tests of what holds for all inputs."""
