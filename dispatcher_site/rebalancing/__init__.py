"""Rows that change shards: re-homing first, moves of bucket ranges later."""
