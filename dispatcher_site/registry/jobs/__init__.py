"""Durable jobs: pure states, leases in Postgres, the runner, and one file per kind."""
