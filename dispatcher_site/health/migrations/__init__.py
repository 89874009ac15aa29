"""Migrations of the health tables."""
