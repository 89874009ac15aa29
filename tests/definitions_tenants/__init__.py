"""Definitions whose rows belong to tenants, for tests of row filters."""
