"""The browsable control API at /control/v1/."""
