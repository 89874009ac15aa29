"""Prepared endpoints, lanes, executor, mutations."""
