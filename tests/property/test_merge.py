"""However rows are spread over shards, the merged answer is that of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cmp_to_key
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from modeldefs.kit.merge import (
    MergeColumn,
    OrderKey,
    PagePart,
    first_limit,
    merge_groups,
    merge_pages,
    short_parts,
)

SCALED = st.decimals(-1000, 1000, places=2, allow_nan=False).map(str)
LETTERS = st.text(st.sampled_from("aZäß\uffff😀"), max_size=3)
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "text": LETTERS,
    "integer": st.integers(-3, 3),
    "decimal": st.one_of(SCALED, st.sampled_from(["1.5", "1.50", "-0.00", "10", "9"])),
    "float": st.floats(allow_nan=False, width=16),
    "flag": st.booleans(),
}
Key = list[Any]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[OrderKey], list[Key], list[int]]:
    """Draw an order, the keys of some rows (made unique by a number), and the shard of each."""
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), max_size=3))
    order = [OrderKey(draw(st.booleans()), kind == "decimal") for kind in kinds]
    rows = draw(st.lists(st.tuples(*(COLUMNS[kind] for kind in kinds)), max_size=25))
    order.append(OrderKey(draw(st.booleans())))
    keys = [[*row, number] for number, row in enumerate(rows)]
    return order, keys, draw(st.lists(st.integers(0, 4), min_size=len(keys), max_size=len(keys)))


def in_order(keys: Sequence[Key], order: Sequence[OrderKey]) -> list[Key]:
    """Return the keys sorted as one database sorts them, by pairwise comparison."""

    def compare(a: Key, b: Key) -> int:
        for x, y, column in zip(a, b, order, strict=True):
            left, right = (Decimal(x), Decimal(y)) if column.is_decimal else (x, y)
            if left != right:
                return -1 if (left < right) != column.descending else 1
        return 0

    return sorted(keys, key=cmp_to_key(compare))


def page_of(
    keys: Sequence[Key], order: Sequence[OrderKey], limit: int, after: Key | None
) -> PagePart:
    """Return what one shard answers: its first rows behind the position, and whether more."""
    others = [key for key in keys if key != after]
    ordered = in_order([*others, after] if after is not None else keys, order)
    behind = ordered[ordered.index(after) + 1 :] if after is not None else ordered
    chosen = behind[:limit]
    return PagePart([repr(key).encode() for key in chosen], chosen, len(behind) > limit)


def split(keys: Sequence[Key], homes: Sequence[int]) -> list[list[Key]]:
    """Return the keys of each of five shards."""
    parts: list[list[Key]] = [[], [], [], [], []]
    for key, home in zip(keys, homes, strict=True):
        parts[home].append(key)
    return parts


@settings(deadline=None)
@given(tables(), st.integers(1, 8))
def test_page_of_parts_is_the_page_of_the_whole(
    table: tuple[list[OrderKey], list[Key], list[int]], limit: int
) -> None:
    """The first page over any split is the first page of one database."""
    order, keys, homes = table
    whole = in_order(keys, order)
    merged = merge_pages(
        [page_of(part, order, limit, None) for part in split(keys, homes)], order, limit
    )

    assert [repr(key).encode() for key in whole[:limit]] == merged.rows
    assert (whole[:limit][-1] if whole else None) == merged.last
    assert (len(whole) > limit) is merged.more


@settings(deadline=None)
@given(tables(), st.integers(1, 8), st.randoms(use_true_random=False))
def test_a_walk_meets_every_row_once(
    table: tuple[list[OrderKey], list[Key], list[int]], limit: int, chance: Any
) -> None:
    """Page by page behind the last key, in any order of parts, each row comes exactly once."""
    order, keys, homes = table
    parts = split(keys, homes)
    seen: list[bytes] = []
    after: Key | None = None
    for _ in range(len(keys) + 1):
        chance.shuffle(parts)
        behind = [page_of(part, order, limit, None) for part in parts]
        if after is not None:
            behind = [_behind(part, order, limit, after) for part in parts]
        merged = merge_pages(behind, order, limit)
        seen += merged.rows
        if not merged.more:
            break
        after = list(merged.last or ())

    assert [repr(key).encode() for key in in_order(keys, order)] == seen


def _behind(part: list[Key], order: list[OrderKey], limit: int, after: Key) -> PagePart:
    ours = [key for key in part if key != after]
    return page_of(ours, order, limit, after)


NUMBERS = st.floats(-1e15, 1e15, allow_nan=False)
GROUPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", None]),
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.one_of(st.none(), SCALED),
        st.one_of(st.none(), NUMBERS),
        LETTERS,
    ),
    max_size=30,
)
MEASURES = [
    MergeColumn("sum", "count"),
    MergeColumn("sum", "integer"),
    MergeColumn("lowest", "integer"),
    MergeColumn("highest", "other"),
    MergeColumn("sum", "decimal"),
    MergeColumn("highest", "decimal"),
    MergeColumn("mean", "float"),
    MergeColumn("mean", "decimal", 8),
]
Row = tuple[str | None, int | None, str | None, float | None, str]


def part_of(rows: Sequence[Row]) -> list[list[Any]]:
    """Return the groups of one shard, as its Postgres answers them."""
    part = []
    for name in dict.fromkeys(row[0] for row in rows):
        own = [row for row in rows if row[0] == name]
        whole = [row[1] for row in own if row[1] is not None]
        money = [Decimal(row[2]) for row in own if row[2] is not None]
        part.append(
            [
                name,
                len(own),
                str(sum(whole)) if whole else None,
                min(whole, default=None),
                max(row[4] for row in own),
                str(sum(money, Decimal("0.00"))) if money else None,
                str(max(money)) if money else None,
                *(str(sum(whole)) if whole else None, len(whole)),
                *(str(sum(money)) if money else None, len(money)),
            ]
        )
    return part


def whole_of(rows: Sequence[Row]) -> dict[str | None, list[Any]]:
    """Return the measures of each group, computed at once and exactly."""
    found = {}
    for name in dict.fromkeys(row[0] for row in rows):
        own = [row for row in rows if row[0] == name]
        whole = [row[1] for row in own if row[1] is not None]
        money = [Decimal(row[2]) for row in own if row[2] is not None]
        found[name] = [
            len(own),
            sum(whole) if whole else None,
            min(whole, default=None),
            max(row[4] for row in own),
            sum(money) if money else None,
            max(money, default=None),
            float(Fraction(sum(whole), len(whole))) if whole else None,
            Fraction(sum(money)) / len(money) if money else None,
        ]
    return found


def shares(rows: Sequence[Row], homes: Sequence[int]) -> list[list[list[Any]]]:
    """Return the parts of five shards."""
    return [
        part_of([row for row, home in zip(rows, homes, strict=False) if home == shard])
        for shard in range(5)
    ]


@settings(deadline=None)
@given(GROUPS, st.lists(st.integers(0, 4), min_size=30, max_size=30))
def test_groups_of_parts_are_the_groups_of_the_whole(rows: list[Row], homes: list[int]) -> None:
    """Counts, sums, extremes and means over any split are those of one database, exactly."""
    merged = merge_groups(shares(rows, homes), 1, MEASURES)
    found = {
        name: [*plain, money and Decimal(money), most and Decimal(most), mean, share]
        for name, *plain, money, most, mean, share in merged
    }
    expected = whole_of(rows)
    for values in expected.values():
        share = values[-1]
        values[-1] = share if share is None else _rounded(share)

    assert expected == found


def _rounded(share: Fraction) -> str:
    scaled = abs(share) * 10**8
    digits = int(scaled + Fraction(1, 2))
    sign = "-" if share < 0 else ""
    return f"{sign}{digits // 10**8}.{digits % 10**8:08}"


@settings(deadline=None)
@given(
    st.lists(st.tuples(NUMBERS, st.integers(1, 5)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_order_of_parts_is_irrelevant(parts: list[tuple[float, int]], chance: Any) -> None:
    """Sums and means of floats do not depend on which shard answered first."""
    measures = [MergeColumn("sum", "float"), MergeColumn("mean", "float", -1)]
    answers = [[["a", total, total, number]] for total, number in parts]
    mixed = list(answers)
    chance.shuffle(mixed)
    exact = sum(Fraction(total) for total, _ in parts)

    assert merge_groups(answers, 1, measures) == merge_groups(mixed, 1, measures)
    assert [["a", float(exact), float(exact / sum(n for _, n in parts))]] == merge_groups(
        answers, 1, measures
    )


@given(table=tables(), limit=st.integers(1, 12), asked=st.integers(1, 12), data=st.data())
def test_asking_each_shard_for_fewer_rows_loses_none(
    table: tuple[list[OrderKey], list[Key], list[int]],
    limit: int,
    asked: int,
    data: st.DataObject,
) -> None:
    """However few rows each shard is asked for first, the page is exact once those that may hold
    more of it were asked again, and it says rightly whether rows are left.
    """
    order, keys, homes = table
    after = data.draw(st.one_of(st.none(), st.sampled_from(keys))) if keys else None
    spread = [[k for k, home in zip(keys, homes, strict=True) if home == n] for n in range(5)]
    whole = page_of(keys, order, limit, after)

    parts = [page_of(own, order, min(asked, limit), after) for own in spread]
    short = short_parts(parts, merge_pages(parts, order, limit), order, limit)
    for place in short:
        parts[place] = page_of(spread[place], order, limit, after)
    merged = merge_pages(parts, order, limit)

    assert list(whole.rows) == merged.rows
    assert whole.more == merged.more
    assert len(short) < len(parts) or asked < limit


@given(limit=st.integers(1, 1_000), shards=st.integers(1, 64))
def test_a_first_question_asks_for_enough_in_all(limit: int, shards: int) -> None:
    """Together the shards are asked for a page at least, each for a page at most."""
    asked = first_limit(limit, shards)

    assert 1 <= asked <= limit
    assert asked * shards >= limit
