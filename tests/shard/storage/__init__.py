"""Storage of one shard on a real Postgres."""
