"""Tests of Shardpoint. Each states a promise."""
