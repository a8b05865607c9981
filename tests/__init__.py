"""Tests; shared small things live in tests/tiny.py, shared fixtures in tests/conftest.py."""
