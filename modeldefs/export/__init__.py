"""Typed clients and schemas made from the catalog."""
