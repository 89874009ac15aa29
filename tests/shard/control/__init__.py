"""Node control of a real node process."""
