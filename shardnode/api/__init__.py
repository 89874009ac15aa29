"""HTTP surfaces of a node: the endpoints for direct calls, and node control."""
