"""Putting the shards' parts together: ordered pages without parsing rows, and sums of groups.

A page part carries typed sort keys beside rows that are already JSON; the merge compares keys and
joins bytes. A group part carries typed values; equal groups are added up by each measure's rule.
The result does not depend on the order in which parts arrive.

Pure: no Django, no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from math import ceil, isfinite, sqrt
from operator import itemgetter
from typing import Any

_WIDE = Context(prec=2_000)
ASK_LESS_FROM_SHARDS = 4


@dataclass(frozen=True, slots=True)
class OrderKey:
    """One column of an order: how to compare it, and in which direction."""

    descending: bool
    is_decimal: bool = False


@dataclass(frozen=True, slots=True)
class PagePart:
    """One shard's rows for a page: raw JSON rows, their keys, and whether it holds more."""

    rows: Sequence[bytes]
    keys: Sequence[Sequence[Any]]
    more: bool


@dataclass(frozen=True, slots=True)
class MergedPage:
    """The page: raw rows in order, the key of the last one, and whether rows are left."""

    rows: list[bytes]
    last: Sequence[Any] | None
    more: bool


def merge_pages(parts: Sequence[PagePart], order: Sequence[OrderKey], limit: int) -> MergedPage:
    """Return the first ``limit`` rows of all parts in order.

    Exact only if each part holds its own first ``limit`` rows, or all that it has.
    """
    rows = [
        entry
        for part in parts
        for entry in zip(comparables(part.keys, order), part.keys, part.rows, strict=True)
    ]
    sort_entries(rows, order)
    kept = rows[:limit]
    more = len(rows) > limit or any(part.more for part in parts)
    return MergedPage(
        [row for _, _, row in kept], kept[-1][1] if kept else None, bool(more and kept)
    )


def first_limit(limit: int, shards: int) -> int:
    """Return how many rows to ask each shard for first: its fair share and a margin.

    Rows are spread by a hash, so a shard's share of a page is binomial: four standard deviations
    make a second question rare. Below four shards it would save too little.
    """
    if shards < ASK_LESS_FROM_SHARDS:
        return limit
    share = limit / shards
    return min(limit, ceil(share + 4 * sqrt(share)))


def short_parts(
    parts: Sequence[PagePart], merged: MergedPage, order: Sequence[OrderKey], limit: int
) -> list[int]:
    """Return the parts that may lack rows of this page, because they were asked for fewer.

    A part that has more, and whose own last row stands before the page's last: what it did not
    give may belong between them.
    """
    is_full = len(merged.rows) >= limit
    return [
        place
        for place, part in enumerate(parts)
        if part.more
        and not (
            is_full
            and merged.last is not None
            and compare_keys(part.keys[-1], merged.last, order) >= 0
        )
    ]


def compare_keys(a: Sequence[Any], b: Sequence[Any], order: Sequence[OrderKey]) -> int:
    """Return -1, 0 or 1: does a key stand before, at or behind another?"""
    for own, other, column in zip(*comparables((a, b), order), order, strict=True):
        if own != other:
            is_before = own > other if column.descending else own < other
            return -1 if is_before else 1
    return 0


def sort_entries(entries: list[Any], order: Sequence[OrderKey]) -> None:
    """Sort tuples by their first member, a key in its comparable form; those that are equal stay
    as they are.
    """
    directions = {column.descending for column in order}
    if len(directions) == 1:
        entries.sort(key=itemgetter(0), reverse=directions.pop())
        return
    # One stable sort per column, last column first.
    for place in reversed(range(len(order))):
        entries.sort(key=_at(place), reverse=order[place].descending)


def _at(place: int) -> Callable[[Sequence[Any]], Any]:
    return lambda entry: entry[0][place]


def comparables(
    keys: Sequence[Sequence[Any]], order: Sequence[OrderKey]
) -> Sequence[Sequence[Any]]:
    """Return keys in the form that compares as Postgres does: decimals come as texts."""
    if not any(column.is_decimal for column in order):
        return keys
    return [
        [
            Decimal(value) if column.is_decimal else value
            for value, column in zip(key, order, strict=True)
        ]
        for key in keys
    ]


@dataclass(frozen=True, slots=True)
class MergeColumn:
    """One measure of a group part: its rule and the kind of its value."""

    rule: str  # sum, lowest, highest, mean, only
    kind: str  # integer, decimal, float, other
    scale: int = 0

    @property
    def width(self) -> int:
        """How many values of a part it takes."""
        return 2 if self.rule == "mean" else 1


def merge_groups(
    parts: Iterable[Iterable[Sequence[Any]]],
    width: int,
    measures: Sequence[MergeColumn],
    decimals: Sequence[int] = (),
) -> list[list[Any]]:
    """Return one row per group over all parts: its ``width`` group values, then its measures.

    Groups come in no particular order; ``sort_groups`` orders them. ``decimals`` are the places of
    decimal group values, which come as text: 1.5 and 1.50 are one group.
    """
    combined: dict[tuple[Any, ...], list[Any]] = {}
    shown: dict[tuple[Any, ...], list[Any]] = {}
    for part in parts:
        for row in part:
            group, texts = _group_of(row[:width], decimals)
            values = _decoded(row[width:], measures)
            known = combined.get(group)
            if known is None:
                combined[group], shown[group] = values, texts
                continue
            combined[group] = [
                _RULES[measure.rule](before, value)
                for measure, before, value in zip(measures, known, values, strict=True)
            ]
            for place in decimals:
                if texts[place] is not None:
                    shown[group][place] = max(shown[group][place], texts[place], key=len)
    return [
        [*shown[group], *(_final(m, value) for m, value in zip(measures, values, strict=True))]
        for group, values in combined.items()
    ]


def _group_of(values: Sequence[Any], decimals: Sequence[int]) -> tuple[tuple[Any, ...], list[Any]]:
    """Return what a group is known by, and what is shown of it."""
    texts = list(values)
    exact = list(values)
    for place in decimals:
        if exact[place] is not None:
            exact[place] = Decimal(exact[place])
    return tuple(exact), texts


def _decoded(values: Sequence[Any], measures: Sequence[MergeColumn]) -> list[Any]:
    decoded: list[Any] = []
    at = 0
    for measure in measures:
        value = values[at]
        if measure.rule == "mean":
            decoded.append((_exact(value), values[at + 1]))
        elif measure.rule == "sum":
            decoded.append(Decimal(value) if _is_decimal(measure, value) else _exact(value))
        elif _is_decimal(measure, value):
            decoded.append(Decimal(value))
        else:
            decoded.append(value)
        at += measure.width
    return decoded


def _is_decimal(measure: MergeColumn, value: Any) -> bool:
    return measure.kind == "decimal" and value is not None


def _exact(value: Any) -> Any:
    """Return a number that adds up the same in any order; what is not finite stays as it is."""
    if isinstance(value, str) or (isinstance(value, float) and isfinite(value)):
        return Fraction(value)
    return value


def _add(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return _WIDE.add(a, b) if isinstance(a, Decimal) else a + b


def _pair(a: Any, b: Any) -> Any:
    return _add(a[0], b[0]), a[1] + b[1]


def _lower(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None or a <= b else b


def _higher(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None or a >= b else b


def _only(a: Any, b: Any) -> Any:
    raise ValueError("a measure of one shard came from two")


_RULES: dict[str, Callable[[Any, Any], Any]] = {
    "sum": _add,
    "mean": _pair,
    "lowest": _lower,
    "highest": _higher,
    "only": _only,
}


def _final(measure: MergeColumn, value: Any) -> Any:
    if measure.rule == "mean":
        total, number = value
        if not number or total is None:
            return None
        quotient = total / number
        if measure.kind == "decimal":
            exact = _WIDE.divide(Decimal(quotient.numerator), Decimal(quotient.denominator))
            step = Decimal(1).scaleb(-measure.scale)
            return format(exact.quantize(step, ROUND_HALF_UP, _WIDE), "f")
        return float(quotient)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, Fraction):
        return float(value) if measure.kind == "float" else int(value)
    return value


def sort_groups(
    rows: list[list[Any]], order: Sequence[tuple[int, bool, bool]], width: int
) -> list[list[Any]]:
    """Return groups ordered by (column, descending, is decimal), ties by the groups themselves.

    An absent value comes last in either direction.
    """
    ties = [(place, False, False) for place in range(width)]
    for place, descending, is_decimal in reversed([*order, *ties]):
        absent = [row for row in rows if row[place] is None]
        present = [row for row in rows if row[place] is not None]
        key: Callable[[list[Any]], Any] = itemgetter(place)
        if is_decimal:
            key = _decimal_at(place)
        present.sort(key=key, reverse=descending)
        rows = present + absent
    return rows


def _decimal_at(place: int) -> Callable[[list[Any]], Any]:
    return lambda row: Decimal(row[place])


def empty_totals(measures: Sequence[MergeColumn]) -> list[Any]:
    """Return the totals over no shard at all: zero for sums of counts, else absent."""
    return [
        0 if measure.rule == "sum" and measure.kind == "count" else None for measure in measures
    ]
