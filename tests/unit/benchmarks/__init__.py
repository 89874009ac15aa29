"""Unit tests of the pure parts of tests.benchmarks."""
