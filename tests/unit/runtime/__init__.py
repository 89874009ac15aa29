"""What a node decides around a statement, with lanes that answer when they are told."""
