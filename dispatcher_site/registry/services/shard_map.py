"""The shard map: append-only epochs of contiguous bucket ranges that cover the whole keyspace.

A new map is written whole, with the epoch after the newest one, in one transaction under a lock.
A range keeps its ``since`` while its owner stays the same, so an unrelated change bounces nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from django.db import connection, transaction

from dispatcher_site.registry.models import BucketRange, MapEpoch, Shard
from dispatcher_site.registry.services.counters import raise_routing
from dispatcher_site.trust import audit
from dispatcher_site.trust.actors import Actor
from modeldefs.kit.buckets import BUCKET_COUNT
from modeldefs.wire.problems import StaleEpoch

MAP_LOCK = 0x5350_0002


class OwnedRange(NamedTuple):
    """Buckets ``first`` to ``last``, both included, their owner, and since which epoch."""

    first: int
    last: int
    shard: str
    since: int


class BrokenMap(ValueError):
    """The ranges do not cover every bucket exactly once."""


def even_ranges(shards: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return contiguous ranges of equal size (within one bucket) in the shards' order."""
    edges = [BUCKET_COUNT * i // len(shards) for i in range(len(shards) + 1)]
    return [(edges[i], edges[i + 1] - 1, shard) for i, shard in enumerate(shards)]


def next_ranges(
    current: Sequence[OwnedRange], wanted: Sequence[tuple[int, int, str]], *, epoch: int
) -> list[OwnedRange]:
    """Return the wanted ranges, cut where ownership is older than the new epoch.

    Raises:
        BrokenMap: They leave out a bucket or name one twice.
    """
    ranges = sorted(wanted)
    ends = [-1, *(last for _, last, _ in ranges)]
    if not ranges or ends[-1] != BUCKET_COUNT - 1:
        raise BrokenMap(f"the map ends at bucket {ends[-1]}")
    if any(first != ends[i] + 1 or last < first for i, (first, last, _) in enumerate(ranges)):
        raise BrokenMap(f"{ranges} have a gap or an overlap")
    made: list[OwnedRange] = []
    for first, last, shard in ranges:
        kept = [r for r in current if r.shard == shard and r.first <= last and first <= r.last]
        start = first
        for old in kept:
            if start < old.first:
                made.append(OwnedRange(start, old.first - 1, shard, epoch))
            end = min(last, old.last)
            made.append(OwnedRange(max(start, old.first), end, shard, old.since))
            start = end + 1
        if start <= last:
            made.append(OwnedRange(start, last, shard, epoch))
    return made


def current_epoch() -> int:
    """Return the newest map's epoch, 0 when there is none yet."""
    newest = MapEpoch.objects.order_by("-epoch").values_list("epoch", flat=True).first()
    return newest or 0


def current_ranges(epoch: int | None = None) -> list[OwnedRange]:
    """Return the ranges of a map, the newest by default, in bucket order."""
    number = current_epoch() if epoch is None else epoch
    found = BucketRange.objects.filter(epoch_id=number).order_by("first")
    return [OwnedRange(*row) for row in found.values_list("first", "last", "shard__name", "since")]


@transaction.atomic
def write_map(
    *,
    actor: Actor,
    wanted: Sequence[tuple[int, int, str]],
    after_epoch: int,
    epoch: int | None = None,
    reason: str = "",
) -> MapEpoch:
    """Write the next map.

    Args:
        wanted: (first, last, shard name), covering every bucket once.
        after_epoch: The epoch this was planned on.
        epoch: The new number; the one after ``after_epoch`` unless given.

    Raises:
        StaleEpoch: Another map was written since: plan again.
        BrokenMap: The ranges do not cover the keyspace.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [MAP_LOCK])
    newest = current_epoch()
    if newest != after_epoch:
        raise StaleEpoch(f"The map is at epoch {newest}, this was planned on {after_epoch}.")
    number = epoch if epoch is not None else newest + 1
    ranges = next_ranges(current_ranges(newest), wanted, epoch=number)
    made = MapEpoch.objects.create(epoch=number, reason=reason, actor=str(actor))
    ids = dict(Shard.objects.values_list("name", "pk"))
    BucketRange.objects.bulk_create(
        BucketRange(epoch=made, first=r.first, last=r.last, shard_id=ids[r.shard], since=r.since)
        for r in ranges
    )
    audit.record(
        actor=actor,
        action="map.write",
        target=f"epoch {number}",
        before={"epoch": newest},
        after={"ranges": [list(r) for r in ranges]},
        reason=reason,
    )
    raise_routing()
    return made
