"""Copying misplaced rows: each once, conflicts named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_site.rebalancing import copying
from dispatcher_site.rebalancing.copying import CopiedModel, copy_rows
from dispatcher_site.rebalancing.records import (
    comes_before,
    conflicting_keys,
    split_records,
    value_at,
)
from dispatcher_site.registry.node_client import RowsPage

USER = CopiedModel("User", ("id", "name"), key_position=1, key_kind="BigIntegerField")
ALL = [(0, 16383)]


class MemoryNode:
    """A node that keeps its rows in memory and applies each part of a load once."""

    def __init__(self, rows: Mapping[int, str]) -> None:
        self.held = dict(rows)
        self.applied: dict[tuple[str, int], int] = {}

    def rows(
        self, model: str, *, ranges: Sequence[tuple[int, int]], after: str | None, limit: int
    ) -> RowsPage:
        """Return a page in key order."""
        keys = [key for key in sorted(self.held) if after is None or key > int(after)]
        body = "".join(f"7,{key},{self.held[key]}\n" for key in keys[:limit]).encode()
        return RowsPage(body, str(keys[limit - 1]) if len(keys) > limit else None)

    def load_rows(
        self,
        model: str,
        *,
        load: str,
        part: int,
        body: bytes,
        on_conflict: str,
        columns: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Add the rows that are not there yet."""
        if (load, part) not in self.applied:
            records = [record.decode().strip().split(",") for record in split_records(body)]
            fresh = [(int(key), name) for _, key, name in records if int(key) not in self.held]
            self.held |= dict(fresh)
            self.applied[load, part] = len(fresh)
        return {"rows": self.applied[load, part]}


def copied(source: MemoryNode, target: MemoryNode, load: str = "l") -> copying.CopyCount:
    """Copy everything."""
    return copy_rows(
        source=source, target=target, model=USER, ranges=ALL, load=load, check=lambda: None
    )


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages and parts small enough that there are several."""
    monkeypatch.setattr(copying, "PAGE_ROWS", 4)
    monkeypatch.setattr(copying, "PART_BYTES_MAX", 20)


def test_all_rows_arrive() -> None:
    """Every row of the source is at the target, and counted."""
    source, target = MemoryNode({n: f"u{n}" for n in range(30)}), MemoryNode({})

    count = copied(source, target)

    assert target.held == source.held
    assert (count.read, count.added, count.duplicates, count.conflicts) == (30, 30, 0, [])


def test_a_second_run_changes_and_counts_the_same() -> None:
    """After a crash the numbers of the whole copy come out as if it had run once."""
    source, target = MemoryNode({n: f"u{n}" for n in range(30)}), MemoryNode({3: "u3"})

    first, second = copied(source, target), copied(source, target)

    assert first.document() == second.document() == {"read": 30, "added": 29, "conflicts": []}


def test_identical_rows_are_duplicates_and_different_ones_conflicts() -> None:
    """Only a key with another content is named."""
    source = MemoryNode({n: f"u{n}" for n in range(30)})
    target = MemoryNode({3: "u3", 17: "somebody else", 29: "u29", 31: "x"})

    count = copied(source, target)

    assert count.conflicts == ["17"]
    assert count.duplicates == 3
    assert target.held[17] == "somebody else"


def test_a_key_that_the_owner_lacks_in_these_ranges_is_a_conflict() -> None:
    """A row that was neither added nor found is never taken for a duplicate."""
    assert conflicting_keys({}, {"1": b"7,1,a\n"}) == ["1"]


@given(st.lists(st.text(st.characters(exclude_characters="\x00", codec="utf-8"))))
def test_records_are_split_where_postgres_ends_them(values: list[str]) -> None:
    """Line ends and quotes inside a value end no record."""
    lines = ['1,"{}"\n'.format(value.replace('"', '""')).encode() for value in values]

    records = list(split_records(b"".join(lines)))

    assert records == lines
    assert [value_at(record, 1) for record in records] == values


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("BigIntegerField", "9", "10"),
        ("IntegerField", "-1", "0"),
        ("DecimalField", "9.5", "10"),
        ("TextField", "10", "9"),
        ("TextField", "Z", "a"),
        ("CharField", "\uffff", "\U00010000"),
    ],
)
def test_keys_sort_as_in_postgres(kind: str, one: str, other: str) -> None:
    """Numbers by value, text by code point."""
    assert comes_before(kind)(one, other)
    assert not comes_before(kind)(other, one)
