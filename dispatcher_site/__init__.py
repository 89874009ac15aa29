"""Control plane and front door of a cluster."""
