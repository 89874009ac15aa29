"""CSV records as Postgres writes them, compared byte for byte without being decoded.

Pure: no Django, no clock, no I/O.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal


def split_records(body: bytes) -> Iterator[bytes]:
    """Yield each record of a CSV body with its line end; a quoted value may hold line ends."""
    begun: list[bytes] = []
    quotes = 0
    for line in body.splitlines(keepends=True) if b"\r" not in body else _lines(body):
        begun.append(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            yield b"".join(begun)
            begun, quotes = [], 0
    if begun:
        yield b"".join(begun)


def _lines(body: bytes) -> Iterator[bytes]:
    # A bare CR inside a quoted value ends no line, though bytes.splitlines thinks so.
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end + 1
        yield body[start:end]
        start = end


def value_at(record: bytes, position: int) -> str:
    """Return one value of a record."""
    return next(csv.reader([record.decode("utf-8")], strict=True))[position]


def by_key(records: Sequence[bytes], position: int) -> dict[str, bytes]:
    """Return the records by the value at this position, their primary key."""
    return {value_at(record, position): record for record in records}


def conflicting_keys(theirs: Mapping[str, bytes], ours: Mapping[str, bytes]) -> list[str]:
    """Return the keys of ours that the other side lacks, or has with another content."""
    return [key for key, record in ours.items() if theirs.get(key) != record]


def comes_before(kind: str) -> Callable[[str, str], bool]:
    """Return how primary keys of this Django field type sort in Postgres: is one before another?

    Text is in code point order, which is the order of its UTF-8 bytes.
    """
    if "Integer" in kind or kind in ("AutoField", "BigAutoField", "SmallAutoField"):
        return lambda one, other: int(one) < int(other)
    if kind == "DecimalField":
        return lambda one, other: Decimal(one) < Decimal(other)
    return lambda one, other: one.encode() < other.encode()
