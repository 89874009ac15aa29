"""A shard map gives every bucket exactly one owner, or cannot be made."""

from __future__ import annotations

import pytest

from dispatcher_site.routing.shard_map import BrokenMap, Owner, ShardMap

LAST = 16383
TWO = ShardMap.of(3, [(8192, LAST, "b", 3), (0, 8191, "a", 1)])


@pytest.mark.parametrize(
    "bucket, owner",
    [
        (0, Owner("a", 1)),
        (8191, Owner("a", 1)),
        (8192, Owner("b", 3)),
        (LAST, Owner("b", 3)),
    ],
)
def test_owner_of_a_bucket(bucket: int, owner: Owner) -> None:
    """A range owns both its ends, whatever the order that ranges were given in."""
    assert owner == TWO.owner_at(bucket)


@pytest.mark.parametrize(
    "_case, ranges",
    [
        ("none", []),
        ("gap at the start", [(1, LAST, "a", 1)]),
        ("gap", [(0, 5, "a", 1), (7, LAST, "b", 1)]),
        ("overlap", [(0, 5, "a", 1), (5, LAST, "b", 1)]),
        ("doubled", [(0, LAST, "a", 1), (0, LAST, "a", 1)]),
        ("short", [(0, LAST - 1, "a", 1)]),
        ("beyond", [(0, LAST + 1, "a", 1)]),
        ("backwards", [(0, 5, "a", 1), (6, 5, "c", 1), (6, LAST, "b", 1)]),
        ("from the future", [(0, LAST, "a", 4)]),
    ],
)
def test_broken_maps(_case: str, ranges: list[tuple[int, int, str, int]]) -> None:
    """A map with a gap, an overlap or an owner from the future is refused."""
    with pytest.raises(BrokenMap):
        ShardMap.of(3, ranges)


@pytest.mark.parametrize(
    "starts, owners",
    [
        ((0, 5), (Owner("a", 1),)),
        ((1,), (Owner("a", 1),)),
        ((0, 0), (Owner("a", 1), Owner("b", 1))),
        ((0, 16384), (Owner("a", 1), Owner("b", 1))),
        ((), ()),
    ],
)
def test_broken_parts(starts: tuple[int, ...], owners: tuple[Owner, ...]) -> None:
    """A map cannot be written wrongly by hand either."""
    with pytest.raises(BrokenMap):
        ShardMap(1, starts, owners)


def test_shards_in_order() -> None:
    """Each shard is named once, by its first bucket."""
    found = ShardMap.of(1, [(0, 5, "b", 1), (6, 9, "a", 1), (10, LAST, "b", 1)])

    assert ("b", "a") == found.shards
