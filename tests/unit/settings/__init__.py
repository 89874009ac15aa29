"""Tests of reading the environment."""
