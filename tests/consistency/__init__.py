"""Tests of docs and code agree."""
