"""Tests of adapters against their ports."""
