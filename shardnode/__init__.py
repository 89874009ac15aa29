"""Data plane: one process group per shard."""
