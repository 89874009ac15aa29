"""Tests of the engine's servers and supervisor as processes."""
