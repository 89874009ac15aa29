"""Tests of re-homing's pure parts."""
