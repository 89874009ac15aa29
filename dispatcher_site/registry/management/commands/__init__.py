"""One file per command; sub-commands inside."""
