"""Which shard owns a bucket, and since which epoch.

A shard key hashes to a bucket, and the map gives every bucket one owner. The hash never changes
(``buckets``); data moves by moving ranges of buckets, and each move makes the next map. A request
carries the epoch since which its bucket has this owner, and a shard that knows a later one refuses
it. That refusal, not the speed of our caches, is why an old map cannot lose a write.

Pure: no Django, no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, pairwise, repeat
from typing import NamedTuple

from modeldefs.kit.buckets import BUCKET_COUNT


class BrokenMap(Exception):
    """The ranges do not give every bucket exactly one owner."""


class Owner(NamedTuple):
    """The shard a bucket belongs to, and the epoch of the map that gave it the bucket."""

    shard: str
    since: int


@dataclass(frozen=True, slots=True)
class ShardMap:
    """The owner of every bucket at one epoch. Never edited: a move makes the next map."""

    epoch: int
    starts: tuple[int, ...]  # first bucket of each range, so no gap or overlap can be written
    owners: tuple[Owner, ...]  # owners[i] has starts[i] up to starts[i + 1] - 1
    # The owner of each bucket: looked up with every request, made once for each map.
    by_bucket: tuple[Owner, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise((*self.starts, BUCKET_COUNT)))
        if self.starts[:1] != (0,) or not rising:
            raise BrokenMap(f"starts {self.starts} do not rise from 0 to below {BUCKET_COUNT}")
        if len(self.owners) != len(self.starts):
            raise BrokenMap(f"{len(self.starts)} ranges, {len(self.owners)} owners")
        if any(owner.since > self.epoch for owner in self.owners):
            raise BrokenMap(f"an owner since later than epoch {self.epoch}")
        spans = pairwise((*self.starts, BUCKET_COUNT))
        owned = (repeat(o, b - a) for o, (a, b) in zip(self.owners, spans, strict=True))
        object.__setattr__(self, "by_bucket", tuple(chain.from_iterable(owned)))

    @classmethod
    def of(cls, epoch: int, ranges: Iterable[tuple[int, int, str, int]]) -> ShardMap:
        """Return the map of (first, last, shard, since) ranges.

        Raises:
            BrokenMap: They overlap, or leave a bucket without an owner.
        """
        ordered = sorted(ranges)
        expected = 0
        for first, last, _, _ in ordered:
            if first != expected or last < first:
                raise BrokenMap(f"bucket {expected} has no single owner at epoch {epoch}")
            expected = last + 1
        if expected != BUCKET_COUNT:
            raise BrokenMap(f"bucket {expected} has no owner at epoch {epoch}")
        return cls(
            epoch,
            tuple(entry[0] for entry in ordered),
            tuple(Owner(entry[2], entry[3]) for entry in ordered),
        )

    def owner_at(self, bucket: int) -> Owner:
        """Return the one owner of this bucket."""
        return self.by_bucket[bucket]

    @property
    def shards(self) -> tuple[str, ...]:
        """The shards that own anything, in the order of their first bucket."""
        return tuple(dict.fromkeys(owner.shard for owner in self.owners))

    def ranges_of(self, shard: str) -> tuple[tuple[int, int], ...]:
        """Return the bucket ranges of a shard, first to last inclusive, ascending."""
        ends = (*self.starts[1:], BUCKET_COUNT)
        return tuple(
            (first, end - 1)
            for first, end, owner in zip(self.starts, ends, self.owners, strict=True)
            if owner.shard == shard
        )
