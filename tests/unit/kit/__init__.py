"""Unit tests of modeldefs.kit: no database, no socket."""
