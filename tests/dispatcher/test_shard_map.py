"""The shard map: complete, append-only, and compare-and-set."""

from __future__ import annotations

import itertools

import pytest

from dispatcher_site.registry.reading import routing_snapshot
from dispatcher_site.registry.services import shard_map
from dispatcher_site.registry.services.counters import routing_generation
from dispatcher_site.registry.services.shard_map import BrokenMap, OwnedRange, even_ranges
from modeldefs.wire.problems import StaleEpoch
from tests.dispatcher.making import TESTER, make_shard


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 100])
def test_even_ranges_cover_every_bucket_once(count: int) -> None:
    """The ranges follow each other and differ by one bucket at most."""
    ranges = even_ranges([f"s{i}" for i in range(count)])
    sizes = {last - first + 1 for first, last, _ in ranges}

    assert ranges[0][0] == 0
    assert ranges[-1][1] == 16383
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(ranges))
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "wanted",
    [
        [],
        [(0, 16382, "a")],
        [(1, 16383, "a")],
        [(0, 100, "a"), (102, 16383, "b")],
        [(0, 100, "a"), (100, 16383, "b")],
        [(0, 16384, "a")],
    ],
)
def test_a_map_with_a_gap_or_overlap_is_refused(wanted: list[tuple[int, int, str]]) -> None:
    """No map leaves a bucket without owner, or with two."""
    with pytest.raises(BrokenMap):
        shard_map.next_ranges([], wanted, epoch=1)


def test_an_owner_that_stays_keeps_its_epoch() -> None:
    """A move bounces nobody but the callers of the buckets that moved."""
    current = [OwnedRange(0, 8191, "a", 1), OwnedRange(8192, 16383, "b", 1)]

    after = shard_map.next_ranges(current, [(0, 4095, "a"), (4096, 16383, "b")], epoch=2)

    assert after == [
        OwnedRange(0, 4095, "a", 1),
        OwnedRange(4096, 8191, "b", 2),
        OwnedRange(8192, 16383, "b", 1),
    ]


@pytest.mark.django_db
def test_a_map_planned_on_an_older_one_is_refused() -> None:
    """Of two maps planned at once the second is refused and nothing of it stays."""
    make_shard("a")
    wanted = even_ranges(["a"])
    shard_map.write_map(actor=TESTER, wanted=wanted, after_epoch=0)

    with pytest.raises(StaleEpoch):
        shard_map.write_map(actor=TESTER, wanted=wanted, after_epoch=0)

    assert shard_map.current_epoch() == 1


@pytest.mark.django_db
def test_the_snapshot_says_what_routing_needs() -> None:
    """Ranges, nodes with their keys, and the keyring come as of one generation."""
    make_shard("a", port=1001)
    make_shard("b", port=1002)
    before = routing_generation()
    shard_map.write_map(actor=TESTER, wanted=even_ranges(["a", "b"]), after_epoch=0)

    snapshot = routing_snapshot()

    assert snapshot.generation == routing_generation() == before + 1
    assert snapshot.epoch == 1
    assert snapshot.ranges == (OwnedRange(0, 8191, "a", 1), OwnedRange(8192, 16383, "b", 1))
    assert {name: node.port for name, node in snapshot.nodes.items()} == {"a": 1001, "b": 1002}
    assert snapshot.nodes["a"].pair_key != snapshot.nodes["b"].pair_key
