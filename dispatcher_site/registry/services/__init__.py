"""Every write to the registry: keyword-only, one transaction, one audit row each."""
