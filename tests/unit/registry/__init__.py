"""Tests of the registry's pure parts."""
