"""Measurements, run by `make bench`. Nothing here is asserted: figures are for people."""
