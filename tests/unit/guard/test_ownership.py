"""Which calls a shard takes is decided from one view, and a refusal names the owner."""

from __future__ import annotations

import itertools
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldefs.kit.buckets import BUCKET_COUNT, ranges_of
from modeldefs.wire.problems import StaleEpoch, WrongShard
from shardnode.guard.ownership import (
    OwnershipView,
    Verdict,
    refusal,
    standalone_view,
)
from shardnode.storage.meta import GONE, LEAVING, OWNED, OwnerRange


def view() -> OwnershipView:
    """Return a shard that owns 0-99 since epoch 4 and gave 100 away at epoch 7; the map is 9."""
    states = bytearray([GONE]) * BUCKET_COUNT
    states[:100] = bytes([OWNED]) * 100
    epochs = array("q", [4] * 100 + [7] + [0] * (BUCKET_COUNT - 101))
    owners = (OwnerRange(0, 99, "a", "http://a"), OwnerRange(100, 16383, "b", "http://b"))
    return OwnershipView("a", 9, bytes(states), epochs, owners)


@pytest.mark.parametrize(
    ("bucket", "epoch", "verdict"),
    [
        (0, 4, Verdict.OWNED),
        (99, None, Verdict.OWNED),
        (5, 3, Verdict.CALLER_STALE),
        (5, 5, Verdict.NODE_STALE),
        (5, 10, Verdict.NODE_STALE),
        (100, 7, Verdict.WRONG_SHARD),
        (100, 10, Verdict.NODE_STALE),
        (16383, None, Verdict.WRONG_SHARD),
        (16384, None, Verdict.WRONG_SHARD),
        (-1, 4, Verdict.WRONG_SHARD),
    ],
)
def test_verdict(bucket: int, epoch: int | None, verdict: Verdict) -> None:
    """A call is taken only for an owned bucket, by a caller that knows its epoch."""
    assert view().verdict(bucket, epoch) is verdict


@pytest.mark.parametrize(
    ("epoch", "verdict"),
    [
        (9, Verdict.OWNED),
        (7, Verdict.OWNED),
        (6, Verdict.CALLER_STALE),
        (10, Verdict.NODE_STALE),
    ],
)
def test_map_verdict(epoch: int, verdict: Verdict) -> None:
    """An older map is good while nothing of this shard changed since."""
    assert view().map_verdict(epoch) is verdict


def test_leaving_bucket_is_not_owned() -> None:
    """A bucket on its way out takes no calls."""
    states = bytearray(view().states)
    states[5] = LEAVING
    moved = OwnershipView("a", 9, bytes(states), view().epochs)

    assert moved.verdict(5, 4) is Verdict.WRONG_SHARD


def test_refusal_names_the_owner() -> None:
    """A 421 says who owns the bucket and where."""
    problem = refusal(view(), Verdict.WRONG_SHARD, 100)

    assert isinstance(problem, WrongShard)
    assert problem.status == 421
    assert problem.document()["owner"] == {"shard": "b", "url": "http://b"}
    assert isinstance(refusal(view(), Verdict.CALLER_STALE, 5), StaleEpoch)
    assert refusal(view(), Verdict.OWNED, 5) is None


def test_standalone_owns_all() -> None:
    """A shard that is alone takes every bucket at epoch 0, and any direct call."""
    alone = standalone_view("a")

    assert alone.owned_ranges == [(0, BUCKET_COUNT - 1)]
    assert alone.verdict(12, 0) is alone.verdict(12, None) is Verdict.OWNED


@given(st.sets(st.integers(0, 300)))
def test_ranges_cover_exactly_their_buckets(buckets: set[int]) -> None:
    """Ranges are ascending, apart, and hold the buckets and no other."""
    ranges = list(ranges_of(sorted(buckets)))

    assert sorted(buckets) == [b for first, last in ranges for b in range(first, last + 1)]
    assert all(one[1] + 1 < two[0] for one, two in itertools.pairwise(ranges))
