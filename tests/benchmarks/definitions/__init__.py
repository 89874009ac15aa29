"""The benchmark's own definitions: one table that every peer can have too."""
