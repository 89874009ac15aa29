"""Management commands of a shard node."""
