"""What dispatcher and node say to each other."""
