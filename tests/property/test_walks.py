"""A walk through pages over shards that die, come back and change hands gives every row once.

The cluster is simulated; what decides (which shard is asked for what, what a page is made of,
where each bucket range stands behind it, the cursor between two pages) is the real code.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dispatcher_site.routing.shard_map import ShardMap
from modeldefs.kit.answers import page_outcome, walked_outcome
from modeldefs.kit.asks import Shards
from modeldefs.kit.buckets import BUCKET_COUNT
from modeldefs.kit.walks import (
    ALL_BUCKETS,
    common,
    compared,
    joined,
    multirange,
    portions,
    size,
    standing,
    without,
)
from modeldefs.kit.wireforms import BIGINT, DECIMAL, TEXT
from modeldefs.wire import calls
from modeldefs.wire.cursors import START, Lagging, Stand, read_cursor, sign_cursor
from modeldefs.wire.problems import ShardFault

SHARDS = ("s1", "s2", "s3", "s4")
# Few buckets have rows, so that ranges with and without are moved and lag.
BUCKETS = (0, 1, 2, 5_000, 5_001, 9_000, 16_382, 16_383)
KEY = b"k" * 32

buckets = st.integers(0, BUCKET_COUNT - 1)


@st.composite
def some_ranges(draw: st.DrawFn) -> tuple[tuple[int, int], ...]:
    """Return ranges in order that do not overlap."""
    bounds = sorted(draw(st.sets(buckets, max_size=12)))
    return joined(zip(bounds[::2], bounds[1::2], strict=False))


@st.composite
def maps(draw: st.DrawFn) -> ShardMap:
    """Return a map of any owners, each owner of some buckets or of none."""
    starts = sorted(draw(st.sets(st.sampled_from(BUCKETS[1:]) | buckets, max_size=6)) | {0})
    ends = [*starts[1:], BUCKET_COUNT]
    owners = [draw(st.sampled_from(SHARDS)) for _ in starts]
    return ShardMap.of(
        1,
        [(a, b - 1, owner, 1) for a, b, owner in zip(starts, ends, owners, strict=True)],
    )


def _buckets_of(ranges: Sequence[tuple[int, int]]) -> set[int]:
    return {bucket for first, last in ranges for bucket in range(first, last + 1)}


@settings(max_examples=60)
@given(some_ranges(), some_ranges())
def test_ranges_are_sets_of_buckets(
    a: tuple[tuple[int, int], ...], b: tuple[tuple[int, int], ...]
) -> None:
    """Cut, taken away and counted, ranges are what sets of their buckets are."""
    assert _buckets_of(a) & _buckets_of(b) == _buckets_of(common(a, b))
    assert _buckets_of(a) - _buckets_of(b) == _buckets_of(without(a, b))
    assert len(_buckets_of(a)) == size(a)
    assert joined(a) == joined(reversed(a))


def test_a_multirange_is_written_as_postgres_reads_it() -> None:
    """Both ends belong to a range; none at all is the empty multirange."""
    assert "{[0,7],[9,9]}" == multirange(((0, 7), (9, 9)))
    assert "{}" == multirange(())


def test_standing_covers_every_bucket_once() -> None:
    """What lags and what does not are all buckets, each in one place."""
    stand = Stand([5], (Lagging([1], ((0, 9), (20, 29))), Lagging(None, ((10, 19),))))
    found = standing(stand)

    assert ([5], ((30, BUCKET_COUNT - 1),)) == found[0]
    assert ALL_BUCKETS == joined(pair for _, ranges in found for pair in ranges)
    assert BUCKET_COUNT == sum(size(ranges) for _, ranges in found)


class Walk(RuleBasedStateMachine):
    """One walk through pages of any size while anything happens to the shards."""

    @initialize(
        data=st.data(),
        forms=st.lists(
            st.tuples(st.booleans(), st.sampled_from((TEXT, BIGINT, DECIMAL))), max_size=2
        ),
        first=maps(),
    )
    def begin(self, data: st.DataObject, forms: list[tuple[bool, Any]], first: ShardMap) -> None:
        """Fill the cluster with rows, many of them tied in all but their last key."""
        values = {TEXT: ("a", "b", "ä"), BIGINT: (1, 2, 2**60), DECIMAL: ("1.5", "1.50", "10")}
        self.order = [SimpleNamespace(descending=down, form=form) for down, form in forms]
        self.order.append(SimpleNamespace(descending=data.draw(st.booleans()), form=BIGINT))
        count = data.draw(st.integers(0, 25))
        self.rows = [
            (
                data.draw(st.sampled_from(BUCKETS)),
                [*(data.draw(st.sampled_from(values[form])) for _, form in forms), number],
            )
            for number in range(count)
        ]
        self.map, self.dead = first, set[str]()
        self.cursor: str | None = ""
        self.found: list[int] = []

    # -- what happens to the cluster -------------------------------------------------------------

    @rule(shard=st.sampled_from(SHARDS))
    def die(self, shard: str) -> None:
        """A shard stops answering."""
        self.dead.add(shard)

    @rule(shard=st.sampled_from(SHARDS))
    def come_back(self, shard: str) -> None:
        """A shard answers again."""
        self.dead.discard(shard)

    @rule(other=maps())
    def move(self, other: ShardMap) -> None:
        """Buckets change hands, with their rows."""
        self.map = other

    # -- the walk --------------------------------------------------------------------------------

    @precondition(lambda self: self.cursor is not None)
    @rule(limit=st.integers(1, 6))
    def turn(self, limit: int) -> None:
        """Ask for a page, partial where shards are missing."""
        self._page(limit)

    def _page(self, limit: int) -> None:
        stand = START
        assert self.cursor is not None
        if self.cursor:
            stand = read_cursor(KEY, self.cursor, endpoint="e", binding=b"b", now=0)
        ask: Any = SimpleNamespace(
            plan=SimpleNamespace(first=SimpleNamespace(keys=self.order)),
            limit=limit,
            after=stand.position,
            lagging=stand.lagging,
            served=SimpleNamespace(is_single=False),
        )
        owned = [(shard, joined(self.map.ranges_of(shard))) for shard in self.map.shards]
        gone = [shard for shard, _ in owned if shard in self.dead]
        if len(gone) == len(owned):
            return  # 503: nothing is given, the cursor stays good
        asked = portions(stand, owned)
        parts = [self._part(each, limit) for each in asked if each.shard not in self.dead]
        missing = joined(pair for shard in gone for pair in self.map.ranges_of(shard))
        shards = Shards(
            len(owned), len(owned) - len(gone), missing=tuple(ShardFault(s, "x") for s in gone)
        )
        if gone or stand.lagging:
            page = walked_outcome(ask, parts, shards, missing)
        else:
            page = page_outcome(ask, parts, shards)
        numbers = [int(text) for text in page.rows.split(b",") if text]
        self._check_page(numbers, limit, stand, page.shards.late)
        self.found += numbers
        self.cursor = None
        if page.more:
            self.cursor = sign_cursor(
                KEY, endpoint="e", binding=b"b", position=page.last, now=0, lagging=page.lagging
            )
        if gone:
            assert self.cursor is not None, "what is missing was passed by"

    def _part(self, portion: Any, limit: int) -> calls.PagePart:
        inside = [
            key
            for bucket, key in self.rows
            if any(first <= bucket <= last for first, last in portion.ranges)
            and self._compared(key, portion.position) > 0
        ]
        inside = self._sorted(inside)
        kept = inside[:limit]
        return calls.PagePart([str(key[-1]).encode() for key in kept], kept, len(inside) > limit)

    def _check_page(self, numbers: list[int], limit: int, stand: Stand, late: int) -> None:
        by_number = {key[-1]: key for _, key in self.rows}
        keys = [by_number[number] for number in numbers]
        assert keys == self._sorted(keys)
        assert len(keys) <= limit
        behind = [key for key in keys if self._compared(key, stand.position) <= 0]
        assert len(behind) == late
        assert keys[: len(behind)] == behind

    def _sorted(self, keys: list[list[Any]]) -> list[list[Any]]:
        ordered: list[list[Any]] = []
        for key in keys:
            at = sum(self._compared(each, key) < 0 for each in ordered)
            ordered.insert(at, key)
        return ordered

    def _compared(self, a: Any, b: Any) -> int:
        return compared(a, b, [_order_key(each) for each in self.order])

    def teardown(self) -> None:
        """Let every shard come back and walk to the end: every row came, and none twice."""
        if not hasattr(self, "map"):
            return
        self.dead.clear()
        for _ in range(200):
            if self.cursor is None:
                break
            self._page(3)
        assert self.cursor is None, "the walk does not end"
        assert list(range(len(self.rows))) == sorted(self.found)


def _order_key(key: Any) -> Any:
    return SimpleNamespace(descending=key.descending, is_decimal=key.form is DECIMAL)


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
