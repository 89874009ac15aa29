"""Refusals before any row is touched: unsigned, stale, misrouted, overloaded."""
