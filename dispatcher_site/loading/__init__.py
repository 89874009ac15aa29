"""Getting files into a cluster and out again: load, dump, and the sample data."""
