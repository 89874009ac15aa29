"""Unit tests of dispatcher_site.routing."""
