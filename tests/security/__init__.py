"""Attacks on a running cluster."""
