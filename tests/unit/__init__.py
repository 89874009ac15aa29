"""Tests of single modules, without server or socket."""
