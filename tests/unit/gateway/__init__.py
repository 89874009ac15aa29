"""The decisions of the data path, with streams that answer as they are told."""
