"""Copying the misplaced rows of one shard to one owner, exactly once, and finding conflicts.

The source is fenced, so its pages are the same however often they are read; each page is one
numbered part of a load, which a node applies once. A part of which some records were there already
is compared with the owner's rows: identical ones are duplicates, others are conflicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dispatcher_site.loading.sending import NodeRows
from dispatcher_site.rebalancing.records import (
    by_key,
    comes_before,
    conflicting_keys,
    split_records,
    value_at,
)
from dispatcher_site.registry.node_client import RowsPage

PART_BYTES_MAX = 8 << 20
PAGE_ROWS = 5_000
CONFLICTS_NAMED_MAX = 20

Ranges = Sequence[tuple[int, int]]


class RowHolder(NodeRows, Protocol):
    """What copying needs of a node."""

    def rows(self, model: str, *, ranges: Ranges, after: str | None, limit: int) -> RowsPage:
        """Return the next rows in primary key order."""


@dataclass(frozen=True, slots=True)
class CopiedModel:
    """What copying needs to know of a model: columns as the wire has them."""

    name: str
    columns: tuple[str, ...]  # without the bucket
    key_position: int  # in a record, the bucket counted
    key_kind: str


@dataclass(slots=True)
class CopyCount:
    """How many rows were read, how many of them are new at the owner, and which conflict."""

    read: int = 0
    added: int = 0
    conflicts: list[str] = field(default_factory=list)

    @property
    def duplicates(self) -> int:
        """Rows that the owner had already."""
        return self.read - self.added

    def document(self) -> dict[str, Any]:
        """Return the numbers and some of the conflicts, for the job's step."""
        named = sorted(set(self.conflicts))[:CONFLICTS_NAMED_MAX]
        return {"read": self.read, "added": self.added, "conflicts": named}


def _parts(records: Sequence[bytes]) -> list[list[bytes]]:
    """Return the records in parts of at most ``PART_BYTES_MAX``, the same for the same records."""
    parts: list[list[bytes]] = []
    size = PART_BYTES_MAX
    for record in records:
        if size + len(record) > PART_BYTES_MAX:
            parts.append([])
            size = 0
        parts[-1].append(record)
        size += len(record)
    return parts


def copy_rows(
    *,
    source: RowHolder,
    target: RowHolder,
    model: CopiedModel,
    ranges: Ranges,
    load: str,
    check: Callable[[], None],
) -> CopyCount:
    """Copy all rows of these ranges (all rows when there are none) from source to target."""
    count, after, part = CopyCount(), None, 0
    while True:
        check()
        page = source.rows(model.name, ranges=ranges, after=after, limit=PAGE_ROWS)
        for records in _parts(list(split_records(page.body))):
            part += 1
            answer = target.load_rows(
                model.name,
                load=load,
                part=part,
                body=b"".join(records),
                on_conflict="skip",
                columns=model.columns,
            )
            added = int(answer["rows"])
            count.read += len(records)
            count.added += added
            if added < len(records):
                count.conflicts += _conflicts(target, model, ranges, records, after)
        if page.next_after is None or len(count.conflicts) >= CONFLICTS_NAMED_MAX:
            return count
        after = page.next_after


def _conflicts(
    target: RowHolder,
    model: CopiedModel,
    ranges: Ranges,
    records: Sequence[bytes],
    after: str | None,
) -> list[str]:
    ours = by_key(records, model.key_position)
    order = comes_before(model.key_kind)
    last = value_at(records[-1], model.key_position)
    theirs: dict[str, bytes] = {}
    while True:
        page = target.rows(model.name, ranges=ranges, after=after, limit=PAGE_ROWS)
        theirs |= by_key(list(split_records(page.body)), model.key_position)
        if page.next_after is None or not order(page.next_after, last):
            return conflicting_keys(theirs, ours)
        after = page.next_after
