"""API keys, shard identities, audit."""
