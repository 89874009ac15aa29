"""What authors of definitions and both sites share: models, endpoints, tracing, merging."""
