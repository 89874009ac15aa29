"""Tests of the control plane on a real Postgres."""
