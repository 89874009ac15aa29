"""Bytes and codes that never change once published: golden files and values."""
