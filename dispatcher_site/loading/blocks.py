"""Cutting a file into numbered blocks of whole records.

A block depends on nothing but where it begins and the bytes from there on. So a load that starts
again in the middle cuts the rest exactly as the first attempt did, and the number of a block names
the same lines for ever: that is what lets a shard node refuse to apply one twice.

Pure but for reading the stream it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, NamedTuple

from dispatcher_site.loading.errors import LoadStopped
from dispatcher_site.loading.records import end_of_records

BLOCK_BYTES = 4_194_304


class Place(NamedTuple):
    """Where a block begins: its number, its first byte and its first line (the file's is 1)."""

    number: int
    offset: int
    line: int


class Block(NamedTuple):
    """Whole records of a file, the last one ended by a line feed."""

    place: Place
    data: bytes
    next: Place


def blocks_of(
    stream: IO[bytes], start: Place, *, quoted: bool, block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Yield the blocks from a place on; the stream must stand at that place's offset.

    Raises:
        LoadStopped: A line is longer than a block.
    """
    place, held = start, b""
    while True:
        data = held + stream.read(block_bytes - len(held))
        if not data:
            return
        is_last = len(data) < block_bytes
        if is_last:
            end = len(data)
        else:
            end = end_of_records(data, quoted=quoted) or data.find(b"\n") + 1
        if not end:
            raise LoadStopped(f"line {place.line} is longer than {block_bytes} bytes")
        records = data if end == len(data) else data[:end]
        after = Place(place.number + 1, place.offset + end, place.line + records.count(b"\n"))
        if is_last and not records.endswith(b"\n"):
            records += b"\n"
        yield Block(place, records, after)
        if is_last:
            return
        place, held = after, data[end:]
