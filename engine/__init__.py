"""Embedded servers and the process supervisor: everything `make up` starts."""
