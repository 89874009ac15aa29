"""What should be: shards, map, models, keys, jobs. Tables and services."""
