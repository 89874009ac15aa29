"""Whatever the map and the keys: every bucket has one owner, every key one leg."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher_site.routing.planner import leg_of_key, plan_request
from dispatcher_site.routing.shard_map import ShardMap
from modeldefs.kit.buckets import BUCKET_COUNT, bucket_of

CUTS = st.sets(st.integers(1, BUCKET_COUNT - 1), max_size=20)
KEYS = st.one_of(st.text(max_size=8), st.integers().map(str))


@st.composite
def ranges(draw: st.DrawFn) -> list[tuple[int, int, str, int]]:
    """Draw ranges over all buckets, in any order, with a few owners."""
    edges = [0, *sorted(draw(CUTS)), BUCKET_COUNT]
    found = [
        (first, after - 1, draw(st.sampled_from("abcd")), draw(st.integers(0, 9)))
        for first, after in pairwise(edges)
    ]
    return draw(st.permutations(found))


@settings(deadline=None)
@given(ranges(), st.lists(st.integers(0, BUCKET_COUNT - 1), max_size=30))
def test_every_bucket_has_the_owner_of_its_range(
    given_ranges: list[tuple[int, int, str, int]], buckets: list[int]
) -> None:
    """The map finds for each bucket the one range that holds it."""
    shard_map = ShardMap.of(9, given_ranges)
    edges = [bucket for first, last, _, _ in given_ranges for bucket in (first, last)]

    for bucket in [*buckets, *edges]:
        holders = [(s, e) for first, last, s, e in given_ranges if first <= bucket <= last]
        assert holders == [tuple(shard_map.owner_at(bucket))]


@settings(deadline=None)
@given(ranges(), st.lists(KEYS, max_size=40))
def test_list_plan_covers_each_key_once_at_its_owner(
    given_ranges: list[tuple[int, int, str, int]], keys: list[str]
) -> None:
    """Each distinct key is in exactly one leg, that of its owner; no shard has two legs."""
    shard_map = ShardMap.of(9, given_ranges)
    legs = plan_request(
        shard_map,
        reach="list",
        parameter="ids",
        constants=(),
        values={"ids": keys},
        choose=lambda shards: shards[0],
    ).legs
    asked = [(key, leg.shard) for leg in legs if leg.replaced for key in leg.replaced[1]]

    assert sorted((key, leg_of_key(shard_map, key).shard) for key in set(keys)) == sorted(asked)
    assert len({leg.shard for leg in legs}) == len(legs)


@settings(deadline=None)
@given(ranges(), KEYS)
def test_targeted_leg_is_that_of_the_bucket(
    given_ranges: list[tuple[int, int, str, int]], key: str
) -> None:
    """A leg carries the bucket of its key, and the owner and epoch of that bucket."""
    shard_map = ShardMap.of(9, given_ranges)
    leg = leg_of_key(shard_map, key)

    assert bucket_of(key) == leg.bucket
    assert shard_map.owner_at(bucket_of(key)) == (leg.shard, leg.epoch)


@settings(deadline=None)
@given(ranges())
def test_scatter_asks_each_owner_once(given_ranges: list[tuple[int, int, str, int]]) -> None:
    """A scatter has one leg for each shard that owns anything."""
    shard_map = ShardMap.of(9, given_ranges)
    legs = plan_request(
        shard_map,
        reach="scatter",
        parameter=None,
        constants=(),
        values={},
        choose=lambda shards: shards[0],
    ).legs

    assert sorted({shard for _, _, shard, _ in given_ranges}) == sorted(leg.shard for leg in legs)
