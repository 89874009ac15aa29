"""Starting a whole cluster, or a dispatcher alone, on this machine."""
