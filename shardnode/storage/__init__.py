"""The only SQL and DDL outside traced queries: roles, tables, copy."""
