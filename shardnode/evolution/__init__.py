"""Physical changes of tables on this shard."""
