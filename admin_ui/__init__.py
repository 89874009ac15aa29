"""The Django admin skin of the cluster."""
