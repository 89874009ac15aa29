"""Definitions of a small shop, for tests: every kind of key, column and relation."""
