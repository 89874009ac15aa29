"""However the parts of an export arrive, its rows are the whole in order, and few at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldefs.kit.export_merge import PART_BYTES, PART_ROWS_MAX, ExportMerge, Wanted
from modeldefs.kit.merge import OrderKey
from tests.property.test_merge import Key, page_of, tables

SOURCES = 5


@dataclass
class Shards:
    """Rows by shard, and what was asked of them."""

    order: list[OrderKey]
    keys: list[Key]
    homes: list[int]
    underway: list[Wanted] = field(default_factory=list)
    asked: int = 0

    def ask(self, merge: ExportMerge) -> None:
        """Note what the merge wants now."""
        wanted = merge.wanted()
        places = [each.place for each in (*self.underway, *wanted)]
        assert len(places) == len(set(places)), "one part of a shard at a time"
        self.underway += wanted
        self.asked += len(wanted)

    def answer(self, merge: ExportMerge, which: int, *, at_most: int) -> None:
        """Bring one of the parts under way; a shard may hold what it gives short."""
        wanted = self.underway.pop(which % len(self.underway))
        own = [k for k, home in zip(self.keys, self.homes, strict=True) if home == wanted.place]
        after = None if wanted.after is None else list(wanted.after)
        part = page_of(own, self.order, min(wanted.rows, at_most), after)
        merge.take(wanted.place, part.rows, part.keys, part.more)


def run(
    shards: Shards, merge: ExportMerge, data: st.DataObject, *, restarts: bool = False
) -> list[bytes]:
    """Let parts arrive and rows leave in any order until the export is done."""
    rows: list[bytes] = []
    merge.begin(SOURCES)
    while not merge.is_done:
        shards.ask(merge)
        step = data.draw(st.integers(0, 9))
        if restarts and step == 9:
            moved = data.draw(st.permutations(range(SOURCES)))
            shards.homes = [moved[home] for home in shards.homes]
            shards.underway.clear()
            merge.begin(SOURCES)
        elif merge.is_ready and step < 4:
            piece = merge.hand_out(data.draw(st.integers(1, 7)))
            assert piece
            rows += piece
        elif shards.underway:
            shards.answer(merge, step, at_most=data.draw(st.integers(1, 9)))
        asked = sum(wanted.rows for wanted in shards.underway)
        assert merge.held + asked <= 2 * PART_ROWS_MAX * SOURCES
    return rows


@given(table=tables(), limit=st.one_of(st.none(), st.integers(1, 30)), data=st.data())
def test_any_interleaving_gives_the_whole_in_order(
    table: tuple[list[OrderKey], list[Key], list[int]], limit: int | None, data: st.DataObject
) -> None:
    """Parts of any size in any order of arrival, ties on the declared order, shards without rows:
    the rows are those of one database, behind a cursor and up to a limit, where one is given."""
    order, keys, homes = table
    after = data.draw(st.one_of(st.none(), st.sampled_from(keys))) if keys else None
    merge = ExportMerge(order, after=after, limit=limit)

    rows = run(Shards(order, keys, homes), merge, data)

    whole = page_of(keys, order, limit or len(keys) + 1, after)
    assert list(whole.rows) == rows
    assert merge.position == (whole.keys[-1] if rows else after)


@given(table=tables(), data=st.data())
def test_rows_that_move_between_shards_are_neither_lost_nor_repeated(
    table: tuple[list[OrderKey], list[Key], list[int]], data: st.DataObject
) -> None:
    """When the map changes the export begins again behind its position: every row comes once."""
    order, keys, homes = table

    rows = run(Shards(order, keys, homes), ExportMerge(order, after=None), data, restarts=True)

    assert list(page_of(keys, order, len(keys) + 1, None).rows) == rows


@given(table=tables(), cut=st.integers(0, 25), data=st.data())
def test_what_is_left_behind_a_position_is_exactly_the_rest(
    table: tuple[list[OrderKey], list[Key], list[int]], cut: int, data: st.DataObject
) -> None:
    """Broken off after any row and begun again at its position, both halves are the whole."""
    order, keys, homes = table
    first = ExportMerge(order, after=None, limit=cut) if cut else None
    rows = run(Shards(order, keys, homes), first, data) if first else []
    rest = ExportMerge(order, after=first.position if first else None)

    rows += run(Shards(order, keys, homes), rest, data)

    assert list(page_of(keys, order, len(keys) + 1, None).rows) == rows


ASCENDING = [OrderKey(descending=False)]


def rows_of(size: int, begin: int = 0, weight: int = 10) -> tuple[list[bytes], list[list[Any]]]:
    """Return rows of a weight in bytes, and their keys."""
    return [b"x" * weight] * size, [[begin + n] for n in range(size)]


def test_first_rows_leave_early_and_parts_grow() -> None:
    """The first part is small; the others grow to some hundreds of rows and no further."""
    merge = ExportMerge(ASCENDING, after=None)
    merge.begin(1)
    sizes = []
    for _ in range(6):
        (wanted,) = merge.wanted()
        sizes.append(wanted.rows)
        merge.take(0, *rows_of(wanted.rows, sum(sizes)), True)
        merge.hand_out(wanted.rows)

    assert [31, 127, 511, 511, 511, 511] == sizes


def test_nothing_more_is_asked_for_what_nobody_takes() -> None:
    """While no row is handed out each source is asked for two parts, and then for none."""
    merge = ExportMerge(ASCENDING, after=None)
    merge.begin(2)
    asked = 0
    for _ in range(20):
        for wanted in merge.wanted():
            asked += 1
            merge.take(wanted.place, *rows_of(wanted.rows, asked * 1_000), True)

    assert merge.held <= 2 * 2 * PART_ROWS_MAX
    assert asked <= 2 * 4


@pytest.mark.parametrize("weight", [10, 5_000, 40_000, 300_000])
def test_long_rows_make_small_parts(weight: int) -> None:
    """Memory is bounded by bytes, too: a part of long rows is some 256 KiB, or one row."""
    merge = ExportMerge(ASCENDING, after=None)
    merge.begin(1)
    (first,) = merge.wanted()
    merge.take(0, *rows_of(first.rows, weight=weight), True)
    merge.hand_out(first.rows)
    (second,) = merge.wanted()

    assert second.rows == 1 or second.rows * weight <= PART_BYTES


def test_a_part_over_the_limit_of_a_frame_is_asked_for_in_smaller_ones() -> None:
    """Too large an answer halves the part, down to one row and no further."""
    merge = ExportMerge(ASCENDING, after=None)
    merge.begin(1)
    sizes = [merge.wanted()[0].rows]
    while merge.shrink(0):
        sizes.append(merge.wanted()[0].rows)

    assert 1 == sizes[-1]
    assert all(b <= a // 2 for a, b in pairwise(sizes))
    assert len(sizes) <= math.ceil(math.log2(sizes[0])) + 1


def test_what_is_no_part_is_refused() -> None:
    """An empty part that has more would never end; keys must fit rows."""
    cases: list[tuple[list[bytes], list[Key], bool]] = [([], [], True), ([b"{}"], [], False)]
    for rows, keys, more in cases:
        merge = ExportMerge(ASCENDING, after=None)
        merge.begin(1)
        merge.wanted()
        with pytest.raises(ValueError, match="part"):
            merge.take(0, rows, keys, more)
        assert 0 == merge.held
