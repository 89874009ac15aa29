"""Sharing out the rows of a block: one body per shard, each row to the owner of its bucket.

A row of a document goes to exactly one shard, with its bucket before it; a row of a reference
model goes to all. Splitting the same block under the same map gives the same bodies.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

from dispatcher_site.loading.blocks import Block
from dispatcher_site.loading.records import write_field
from dispatcher_site.loading.rows import NO_BUCKET, Reject, Row, RowReader
from modeldefs.kit.buckets import BUCKET_COUNT

NOTHING: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Routes:
    """Which shard owns each bucket, at one epoch of the shard map."""

    epoch: int
    shards: tuple[str, ...]
    owners: tuple[int, ...]  # bucket -> place in ``shards``

    def ranges_of(self, shard: str) -> list[tuple[int, int]]:
        """Return the bucket ranges that a shard owns."""
        index = self.shards.index(shard)
        ranges: list[tuple[int, int]] = []
        for bucket, owner in enumerate(self.owners):
            if owner != index:
                continue
            if ranges and ranges[-1][1] == bucket - 1:
                ranges[-1] = (ranges[-1][0], bucket)
            else:
                ranges.append((bucket, bucket))
        return ranges


def routes_of(epoch: int, ranges: Iterable[tuple[int, int, str]]) -> Routes:
    """Return the routes of a shard map given as ``(first, last, shard)`` ranges.

    Raises:
        ValueError: A bucket has no owner, or two.
    """
    ordered = sorted(ranges)
    shards = tuple(sorted({shard for _, _, shard in ordered}))
    owners: list[int] = []
    for first, last, shard in ordered:
        if first != len(owners) or last < first:
            raise ValueError(f"bucket {min(first, len(owners))} has no owner, or two")
        owners.extend([shards.index(shard)] * (last + 1 - first))
    if len(owners) != BUCKET_COUNT:
        raise ValueError(f"bucket {len(owners)} has no owner")
    return Routes(epoch, shards, tuple(owners))


class Body(NamedTuple):
    """What one shard gets of a block."""

    data: bytes
    rows: int


@dataclass(frozen=True, slots=True)
class Split:
    """A block shared out."""

    bodies: dict[str, Body]
    rejects: list[Reject] = field(default_factory=list)


class Splitter:
    """Shares out blocks under one shard map. Not for several threads at once."""

    def __init__(self, reader: RowReader, routes: Routes) -> None:
        self.reader = reader
        self.routes = routes
        constants = [(column.default or "").encode() for column in reader.mapping.added]
        self._added = b"".join(write_field(text) + b"," for text in constants)
        self._prefixes = [b"%d,%b" % (bucket, self._added) for bucket in range(BUCKET_COUNT)]
        self._lines: list[list[bytes]] = [[] for _ in routes.shards]
        self._append = [self._lines[owner].append for owner in routes.owners]

    def split(self, block: Block, *, excluding: AbstractSet[int] = NOTHING) -> Split:
        """Return each shard's body, and the lines that can be nobody's.

        Args:
            block: Whole records.
            excluding: Lines already known to be rejected; they are left out silently.
        """
        plain = None if excluding else self.reader.plain_rows(block)
        if plain is None:
            return self._split_rows(self.reader.read(block), excluding)
        if not plain.buckets:
            return Split(self._to_all([self._added + line for line in plain.lines]))
        prefixes, append = self._prefixes, self._append
        for bucket, line in zip(plain.buckets, plain.lines, strict=True):
            append[bucket](prefixes[bucket] + line)
        return Split(self._taken())

    def rows_for(
        self, block: Block, shard: str, *, excluding: AbstractSet[int] = NOTHING
    ) -> list[Row]:
        """Return the rows of a shard's body, in the body's order."""
        index = self.routes.shards.index(shard)
        return [
            row
            for row in self.reader.read(block)
            if isinstance(row, Row)
            and row.line not in excluding
            and (row.bucket == NO_BUCKET or self.routes.owners[row.bucket] == index)
        ]

    def body_of(self, rows: Sequence[Row]) -> Body:
        """Return one body of all these rows, whoever owns them."""
        return Body(b"".join(map(self._written, rows)), len(rows))

    def _written(self, row: Row) -> bytes:
        prefix = self._added if row.bucket == NO_BUCKET else self._prefixes[row.bucket]
        return prefix + row.text + b"\n"

    def _split_rows(self, found: Iterable[Row | Reject], excluding: AbstractSet[int]) -> Split:
        rejects: list[Reject] = []
        everywhere: list[bytes] = []
        for row in found:
            if row.line in excluding:
                continue
            if isinstance(row, Reject):
                rejects.append(row)
            elif row.bucket == NO_BUCKET:
                everywhere.append(self._added + row.text)
            else:
                self._append[row.bucket](self._prefixes[row.bucket] + row.text)
        return Split(self._to_all(everywhere) if everywhere else self._taken(), rejects)

    def _to_all(self, lines: list[bytes]) -> dict[str, Body]:
        if not lines:
            return {}
        body = Body(b"\n".join([*lines, b""]), len(lines))
        return dict.fromkeys(self.routes.shards, body)

    def _taken(self) -> dict[str, Body]:
        bodies: dict[str, Body] = {}
        for shard, lines in zip(self.routes.shards, self._lines, strict=True):
            if lines:
                count = len(lines)
                lines.append(b"")
                bodies[shard] = Body(b"\n".join(lines), count)
                lines.clear()
        return bodies
