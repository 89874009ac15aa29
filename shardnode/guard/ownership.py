"""What this shard owns, decided from memory: the refusal comes before any row is touched.

Invariant: a view is immutable and whole; requests are checked against one view, and every write
is checked once more by Postgres in its own transaction. A view that turns out older than the
caller's map asks to be replaced and refuses meanwhile: stale knowledge costs a retry, never a
wrong answer. Pure: no I/O, no clock.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from modeldefs.kit.buckets import BUCKET_COUNT, ranges_of
from modeldefs.wire.problems import Problem, StaleEpoch, WrongShard
from shardnode.storage.meta import OWNED, BucketFacts, OwnerRange


class Verdict(Enum):
    """What a view says about a request."""

    OWNED = "owned"
    WRONG_SHARD = "wrong-shard"
    CALLER_STALE = "caller-stale"
    NODE_STALE = "node-stale"


@dataclass(frozen=True)
class OwnershipView:
    """Who owns which bucket as of one moment, seen from one shard."""

    shard: str
    map_epoch: int
    states: bytes
    epochs: array[int]
    owners: tuple[OwnerRange, ...] = ()
    standalone: bool = False

    @classmethod
    def of(
        cls, facts: BucketFacts, *, shard: str, map_epoch: int, standalone: bool
    ) -> OwnershipView:
        """Return the view of what is stored."""
        return cls(
            shard=shard,
            map_epoch=map_epoch,
            states=facts.states,
            epochs=facts.epochs,
            owners=tuple(sorted(facts.owners)),
            standalone=standalone,
        )

    @cached_property
    def changed_epoch(self) -> int:
        """The latest map epoch that changed what this shard owns."""
        return max(self.epochs)

    @cached_property
    def owned_ranges(self) -> list[tuple[int, int]]:
        """The bucket ranges owned here, first to last inclusive, ascending."""
        return list(ranges_of(b for b in range(BUCKET_COUNT) if self.states[b] == OWNED))

    def owns(self, bucket: int, epoch: int | None) -> bool:
        """Say whether the verdict is OWNED, which it nearly always is."""
        return (
            0 <= bucket < BUCKET_COUNT
            and self.epochs[bucket] == epoch
            and self.states[bucket] == OWNED
        )

    def verdict(self, bucket: int, epoch: int | None) -> Verdict:
        """Decide about a call for one bucket; without an epoch only ownership counts."""
        if not 0 <= bucket < BUCKET_COUNT:
            return Verdict.WRONG_SHARD
        known = self.epochs[bucket]
        if epoch is not None and epoch > max(known, self.map_epoch):
            return Verdict.NODE_STALE
        if self.states[bucket] != OWNED:
            return Verdict.WRONG_SHARD
        if epoch is None or epoch == known:
            return Verdict.OWNED
        return Verdict.CALLER_STALE if epoch < known else Verdict.NODE_STALE

    def map_verdict(self, epoch: int) -> Verdict:
        """Decide about a scatter made by a whole map.

        An older map is as good as ours while nothing of this shard changed since.
        """
        if epoch > self.map_epoch:
            return Verdict.NODE_STALE
        return Verdict.OWNED if epoch >= self.changed_epoch else Verdict.CALLER_STALE

    def owner_of(self, bucket: int) -> OwnerRange | None:
        """Return who owns a bucket according to the map, if it says so."""
        place = bisect_right(self.owners, (bucket, BUCKET_COUNT, "", "")) - 1
        if place < 0:
            return None
        owner = self.owners[place]
        return owner if owner.first <= bucket <= owner.last else None


def refusal(view: OwnershipView, verdict: Verdict, bucket: int | None) -> Problem | None:
    """Return the problem that a verdict means, naming the owner where the map knows it."""
    if verdict is Verdict.OWNED:
        return None
    members: dict[str, object] = {"map_epoch": view.map_epoch}
    if bucket is not None:
        members["bucket"] = bucket
    if verdict is Verdict.CALLER_STALE:
        return StaleEpoch(members=members)
    if verdict is Verdict.NODE_STALE:
        return StaleEpoch("This node is reading the newer shard map now.", members=members)
    owner = view.owner_of(bucket) if bucket is not None else None
    if owner is None or owner.shard == view.shard:
        return WrongShard(members=members)
    return WrongShard(
        f"Bucket {bucket} belongs to shard {owner.shard}.",
        members={**members, "owner": {"shard": owner.shard, "url": owner.url}},
    )


def standalone_view(shard: str) -> OwnershipView:
    """Return the view of a shard that owns every bucket."""
    return OwnershipView(
        shard=shard,
        map_epoch=0,
        states=bytes([OWNED]) * BUCKET_COUNT,
        epochs=array("q", bytes(8 * BUCKET_COUNT)),
        standalone=True,
    )


def owned_among(view: OwnershipView, buckets: Sequence[int]) -> list[int]:
    """Return those of the buckets that are owned here."""
    return [bucket for bucket in buckets if view.states[bucket] == OWNED]
