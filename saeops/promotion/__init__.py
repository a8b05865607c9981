"""Promotion: policy, judge, journal, rollback plan."""
