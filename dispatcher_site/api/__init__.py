"""HTTP surfaces: ninja data endpoints and the DRF control API."""
