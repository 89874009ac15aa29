"""What a shard knows about itself: ownership, epochs, keyring, enrolment.

Invariant: these rows are facts of this Postgres and change only through the owner's functions,
which accept nothing older than what is stored. Reading is cheap enough to repeat each second:
``changes`` says whether the 16384 bucket rows need reading again.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from modeldefs.kit.buckets import BUCKET_COUNT
from modeldefs.wire.problems import Conflict, InputError, InvalidRequest, StaleEpoch, WrongShard

Connection = psycopg.Connection[Any]

OWNED, LEAVING, INCOMING, GONE = range(4)
STATES = ("owned", "leaving", "incoming", "gone")


class OwnedRange(NamedTuple):
    """Buckets of this shard, first to last inclusive, owned since a map epoch."""

    first: int
    last: int
    since: int


class OwnerRange(NamedTuple):
    """Buckets, first to last inclusive, and the shard that owns them."""

    first: int
    last: int
    shard: str
    url: str


@dataclass(frozen=True, slots=True)
class ShardMeta:
    """The one row about this shard."""

    cluster_id: UUID | None
    shard_name: str
    instance: UUID
    map_epoch: int
    keyring_generation: int
    keyring: bytes | None
    dispatcher: str | None
    bundle: str | None
    standalone: bool
    changes: int


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """State and epoch of every bucket, by position, and who owns the others."""

    states: bytes
    epochs: array[int]
    owners: tuple[OwnerRange, ...]


def read_meta(connection: Connection) -> ShardMeta:
    """Return the shard's own row."""
    with connection.cursor(row_factory=class_row(ShardMeta)) as cursor:
        cursor.execute(
            "SELECT cluster_id, shard_name, instance, map_epoch, keyring_generation, keyring,"
            " dispatcher, bundle, standalone, changes FROM sp_meta"
        )
        meta = cursor.fetchone()
    if meta is None:
        raise RuntimeError("sp_meta is empty: provision this shard first")
    return meta


def read_bucket_facts(connection: Connection) -> BucketFacts:
    """Return what is stored about every bucket, in one snapshot with the owners."""
    row = connection.execute(
        "SELECT array_agg(array_position(%s::text[], state) - 1 ORDER BY bucket),"
        " array_agg(epoch ORDER BY bucket),"
        " (SELECT coalesce(jsonb_agg(jsonb_build_array(first, last, shard, url) ORDER BY first),"
        " '[]') FROM sp_owner) FROM sp_bucket",
        (list(STATES),),
    ).fetchone()
    if row is None or row[0] is None or len(row[0]) != BUCKET_COUNT:
        raise RuntimeError("sp_bucket is incomplete: provision this shard again")
    states, epochs, owners = row
    return BucketFacts(
        states=bytes(states),
        epochs=array("q", epochs),
        owners=tuple(OwnerRange(*owner) for owner in owners),
    )


def accept_map(
    connection: Connection,
    *,
    epoch: int,
    ranges: Sequence[OwnedRange],
    owners: Sequence[OwnerRange],
) -> int:
    """Store a shard map; return how many buckets changed. Waits for writes of those buckets.

    Raises:
        StaleEpoch: The stored map is newer.
        Conflict: The same epoch was given before with other ranges: the registry has forked.
    """
    _check_ranges(epoch, ranges)
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout = '10s'")
        try:
            row = connection.execute(
                "SELECT sp_accept_map(%s, %s::jsonb, %s::jsonb)",
                (epoch, json.dumps(ranges), json.dumps(owners)),
            ).fetchone()
        except psycopg.Error as refusal:
            if refusal.sqlstate == "SP003":
                raise StaleEpoch(refusal.diag.message_primary) from None
            if refusal.sqlstate == "SP004":
                raise Conflict(refusal.diag.message_primary) from None
            raise
    return int(row[0]) if row else 0


def accept_keyring(connection: Connection, *, generation: int, sealed: bytes) -> None:
    """Store a sealed keyring.

    Raises:
        StaleEpoch: The stored keyring is of a later generation.
    """
    row = connection.execute("SELECT sp_accept_keyring(%s, %s)", (generation, sealed)).fetchone()
    if not (row and row[0]):
        raise StaleEpoch("a keyring of a later generation is stored here")


def accept_dispatcher(connection: Connection, *, cluster_id: UUID | None, record: str) -> bool:
    """Store who this shard is enrolled with; False when it is another dispatcher already."""
    row = connection.execute(
        "SELECT sp_accept_dispatcher(%s, %s)", (cluster_id, record)
    ).fetchone()
    return bool(row and row[0])


def hold_map(connection: Connection) -> int:
    """Return the map epoch and keep the map as it is until the transaction ends."""
    row = connection.execute("SELECT map_epoch FROM sp_meta FOR SHARE").fetchone()
    assert row is not None
    return int(row[0])


def hold_bucket(connection: Connection, *, bucket: int, epoch: int) -> None:
    """Keep a bucket here until the transaction ends, and let the guard accept its rows.

    Raises:
        WrongShard: The bucket is not owned at that epoch.
    """
    try:
        found = connection.execute(
            "SELECT set_config('sp.bucket', %s, true) FROM sp_bucket"
            " WHERE bucket = %s AND epoch = %s AND state = 'owned' FOR SHARE",
            (str(bucket), bucket, epoch),
        ).fetchone()
    except errors.LockNotAvailable:
        found = None
    if found is None:
        raise WrongShard(members={"bucket": bucket})


def not_owned(connection: Connection, buckets: Sequence[int]) -> list[int]:
    """Return those of the buckets that this shard does not own now."""
    rows = connection.execute(
        "SELECT wanted.bucket FROM unnest(%s::int[]) AS wanted(bucket)"
        " LEFT JOIN sp_bucket b ON b.bucket = wanted.bucket AND b.state = 'owned'"
        " WHERE b.bucket IS NULL ORDER BY 1",
        (list(buckets),),
    ).fetchall()
    return [int(row[0]) for row in rows]


def _check_ranges(epoch: int, ranges: Sequence[OwnedRange]) -> None:
    following = 0
    for owned in sorted(ranges):
        if not (following <= owned.first <= owned.last < BUCKET_COUNT):
            raise InvalidRequest(
                errors=[
                    InputError(
                        code="out-of-range",
                        detail=f"range {owned.first}-{owned.last} overlaps or is no bucket range",
                        pointer="/ranges",
                    )
                ]
            )
        if not 0 <= owned.since <= epoch:
            raise InvalidRequest(
                errors=[
                    InputError(
                        code="out-of-range",
                        detail=f"range {owned.first}-{owned.last} is newer than the map",
                        pointer="/ranges",
                    )
                ]
            )
        following = owned.last + 1
