"""The data path of the dispatcher: front, streams to nodes, scatter, merge."""
