"""Walks through pages while shards go and come back: which bucket ranges stand where.

All buckets stand at one position, but those whose shard was missing when the others went on: they
lag. A page is made of the next rows of every range, each behind its own position, in one order; so
a shard that is back gives its late rows first. A range stands with the others again once the page
reached them, or was not full.

Ranges, not shards, have positions: whoever owns a bucket by the map of the day is asked for it, so
a walk goes on through changes of the map. Rows that nobody touches come exactly once.

Pure: no Django, no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cmp_to_key
from typing import Any, NamedTuple

from modeldefs.kit.buckets import BUCKET_COUNT
from modeldefs.kit.merge import OrderKey, compare_keys
from modeldefs.wire.cursors import Lagging, Stand

Position = list[Any] | None
Ranges = tuple[tuple[int, int], ...]
_Place = tuple[Position, list[tuple[int, int]]]

ALL_BUCKETS: Ranges = ((0, BUCKET_COUNT - 1),)
# What a cursor can hold; a walk that is scattered further waits for its shards.
LAGGING_RANGES_MAX = 64


class Portion(NamedTuple):
    """What one shard is asked for: rows of these buckets behind this position."""

    shard: str
    position: Position
    ranges: Ranges


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return ranges in order, with neighbours made one. They do not overlap."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and found[-1][1] + 1 == first:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


def common(a: Ranges, b: Ranges) -> Ranges:
    """Return the buckets that are in both; each is in order."""
    found = []
    left, right = iter(a), iter(b)
    one, other = next(left, None), next(right, None)
    while one is not None and other is not None:
        first, last = max(one[0], other[0]), min(one[1], other[1])
        if first <= last:
            found.append((first, last))
        if one[1] < other[1]:
            one = next(left, None)
        else:
            other = next(right, None)
    return tuple(found)


def without(ranges: Ranges, gone: Ranges) -> Ranges:
    """Return the buckets that are in ``ranges`` and not in ``gone``; each is in order."""
    kept, start = [], 0
    for first, last in gone:
        if start < first:
            kept.append((start, first - 1))
        start = last + 1
    if start < BUCKET_COUNT:
        kept.append((start, BUCKET_COUNT - 1))
    return common(ranges, tuple(kept))


def size(ranges: Ranges) -> int:
    """Return how many buckets they are."""
    return sum(last - first + 1 for first, last in ranges)


def multirange(ranges: Ranges) -> str:
    """Return the ranges as Postgres writes an ``int4multirange``."""
    return "{" + ",".join(f"[{first},{last}]" for first, last in ranges) + "}"


def standing(stand: Stand) -> list[tuple[Position, Ranges]]:
    """Return all buckets by where they stand; those that do not lag come first."""
    lagging = joined(pair for each in stand.lagging for pair in each.ranges)
    rest = without(ALL_BUCKETS, lagging)
    return [(stand.position, rest)] * bool(rest) + [
        (each.position, each.ranges) for each in stand.lagging
    ]


def portions(stand: Stand, owned: Iterable[tuple[str, Ranges]]) -> list[Portion]:
    """Return what each shard is asked for: its own buckets, by where they stand."""
    return [
        Portion(shard, position, own)
        for shard, ranges in owned
        for position, standing_there in standing(stand)
        if (own := common(standing_there, ranges))
    ]


def stand_after(
    stand: Stand,
    missing: Ranges,
    last: Position,
    order: Sequence[OrderKey],
    *,
    more: bool,
) -> Stand | None:
    """Return where the walk stands behind a page; None if that was the last one.

    Args:
        stand: Where it stood before.
        missing: The buckets of shards that did not answer.
        last: The place of the page's last row; None if it has none.
        order: How places compare.
        more: Shards that answered have rows behind the page. Then every row of theirs up to
            ``last`` is on it; else every row is.
    """
    if not more and not missing:
        return None
    head = _later(stand.position, last, order)
    places: list[tuple[Position, Ranges]] = []
    for position, ranges in standing(stand):
        present, absent = without(ranges, missing), common(ranges, missing)
        if present:
            places.append((_later(position, last, order) if more else head, present))
        if absent:
            places.append((position, absent))
    return Stand(head, _gathered(places, head, order))


def _gathered(
    places: Iterable[tuple[Position, Ranges]], head: Position, order: Sequence[OrderKey]
) -> tuple[Lagging, ...]:
    """Return what does not stand at the head, equal places together, the furthest behind first."""
    found: list[_Place] = []

    def by_position(one: _Place, other: _Place) -> int:
        return compared(one[0], other[0], order)

    for position, ranges in places:
        if compared(position, head, order) == 0:
            continue
        for known, buckets in found:
            if compared(known, position, order) == 0:
                buckets += ranges
                break
        else:
            found.append((position, list(ranges)))
    found.sort(key=cmp_to_key(by_position))
    return tuple(Lagging(position, joined(buckets)) for position, buckets in found)


def can_be_told(lagging: Sequence[Lagging]) -> bool:
    """Can a cursor hold so many ranges?"""
    return sum(len(each.ranges) for each in lagging) <= LAGGING_RANGES_MAX


def late_rows(
    stand: Stand, keys: Iterable[Sequence[Any]], last: Position, order: Sequence[OrderKey]
) -> int:
    """Return how many of the rows that are on the page stand before where the walk stood."""
    if stand.position is None or not stand.lagging:
        return 0
    return sum(
        compared(key, stand.position, order) <= 0 and compared(key, last, order) <= 0
        for key in keys
    )


def compared(a: Sequence[Any] | None, b: Sequence[Any] | None, order: Sequence[OrderKey]) -> int:
    """Return -1, 0 or 1: is a place before, at or behind another? None is before all."""
    if a is None or b is None:
        return (a is not None) - (b is not None)
    return compare_keys(a, b, order)


def _later(a: Position, b: Position, order: Sequence[OrderKey]) -> Position:
    return b if compared(a, b, order) < 0 else a
