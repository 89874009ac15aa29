"""Tests of dispatcher_site.loading."""
