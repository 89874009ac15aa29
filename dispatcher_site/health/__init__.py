"""Heartbeats and samples of shard health."""
