"""Pure decisions: the shard map and the request planner."""
