"""Ownership is a fact of the shard's own Postgres, and never goes back."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from modeldefs.wire.problems import Conflict, InvalidRequest, StaleEpoch, WrongShard
from shardnode.guard.keeper import Keeper
from shardnode.storage.meta import (
    OwnedRange,
    OwnerRange,
    accept_dispatcher,
    accept_keyring,
    accept_map,
    hold_bucket,
    hold_map,
    read_meta,
)
from tests.shard.storage.provisioned import FixtureShard

Connection = psycopg.Connection[Any]


def test_new_shard_owns_every_bucket_until_it_joins(rw: Connection) -> None:
    """A shard alone takes writes for any bucket; one that is joining takes none."""
    for bucket in (0, 16383):
        with rw.transaction():
            hold_bucket(rw, bucket=bucket, epoch=0)
    accept_map(rw, epoch=0, ranges=[], owners=[])

    assert read_meta(rw).standalone is False
    with pytest.raises(WrongShard), rw.transaction():
        hold_bucket(rw, bucket=0, epoch=0)


def test_map_never_goes_back(rw: Connection) -> None:
    """An older map is refused, the same one again changes nothing, a forked one is a conflict."""
    first = [OwnedRange(0, 99, 4)]
    assert accept_map(rw, epoch=5, ranges=first, owners=[]) == 16384
    assert accept_map(rw, epoch=5, ranges=first, owners=[]) == 0
    with pytest.raises(StaleEpoch):
        accept_map(rw, epoch=4, ranges=first, owners=[])
    with pytest.raises(Conflict):
        accept_map(rw, epoch=5, ranges=[OwnedRange(0, 98, 4)], owners=[])
    assert accept_map(rw, epoch=6, ranges=[OwnedRange(0, 49, 4)], owners=[]) == 50
    with rw.transaction():
        hold_bucket(rw, bucket=49, epoch=4)
    for bucket, epoch in ((49, 6), (50, 4), (50, 6)):
        with pytest.raises(WrongShard), rw.transaction():
            hold_bucket(rw, bucket=bucket, epoch=epoch)


@pytest.mark.parametrize(
    "ranges",
    [[(0, 16384, 1)], [(5, 4, 1)], [(0, 9, 1), (9, 12, 1)], [(0, 9, 2)], [(-1, 9, 1)]],
)
def test_broken_maps_are_refused(
    settled_rw: Connection, ranges: list[tuple[int, int, int]]
) -> None:
    """Ranges that overlap, leave the buckets or come from the future are no map."""
    with pytest.raises(InvalidRequest):
        accept_map(settled_rw, epoch=1, ranges=[OwnedRange(*each) for each in ranges], owners=[])
    assert read_meta(settled_rw).map_epoch == 0


@pytest.mark.parametrize("hold", ["map", "bucket"])
def test_map_waits_for_running_writes(shard: FixtureShard, rw: Connection, hold: str) -> None:
    """A new map takes effect only after the writes made under the old one have ended."""
    done = threading.Event()

    def move_away() -> None:
        with psycopg.connect(shard.rw_dsn, autocommit=True) as other:
            accept_map(other, epoch=1, ranges=[], owners=[])
        done.set()

    thread = threading.Thread(target=move_away)
    with rw.transaction():
        if hold == "map":
            hold_map(rw)
        else:
            hold_bucket(rw, bucket=3, epoch=0)
        thread.start()
        with psycopg.connect(shard.admin_dsn, autocommit=True) as watcher:
            while not watcher.execute(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = %s",
                (shard.names.rw,),
            ).fetchone():
                assert not done.is_set()
        assert not done.is_set()
    thread.join()

    assert done.is_set()
    assert read_meta(rw).map_epoch == 1


def test_keyring_and_dispatcher_never_go_back(rw: Connection) -> None:
    """An older keyring and a second dispatcher are refused."""
    accept_keyring(rw, generation=3, sealed=b"a")
    accept_keyring(rw, generation=3, sealed=b"b")
    with pytest.raises(StaleEpoch):
        accept_keyring(rw, generation=2, sealed=b"c")
    assert read_meta(rw).keyring == b"b"
    assert accept_dispatcher(rw, cluster_id=None, record="one")
    assert accept_dispatcher(rw, cluster_id=None, record="one")
    assert not accept_dispatcher(rw, cluster_id=None, record="two")


def test_keeper_sees_changes(shard: FixtureShard, rw: Connection) -> None:
    """A mismatch makes the keeper read again at once; the refusal names the owner."""
    keeper = Keeper(shard.ro_dsn, poll_s=3_600)
    seen = threading.Event()
    keeper.start()
    try:
        keeper.check(5, 0)
        keeper.check(5, None)
        accept_map(
            rw,
            epoch=1,
            ranges=[OwnedRange(0, 4, 1)],
            owners=[OwnerRange(0, 4, "s1", "u1"), OwnerRange(5, 16383, "s2", "u2")],
        )
        keeper.on_change(lambda _: seen.set())
        with pytest.raises(StaleEpoch):
            keeper.check(4, 1)
        assert seen.wait(10)
        keeper.check(4, 1)
        keeper.check_map(1)
        with pytest.raises(WrongShard) as refused:
            keeper.check(5, 0)
        assert refused.value.members["owner"] == {"shard": "s2", "url": "u2"}
        with pytest.raises(StaleEpoch):
            keeper.check(4, 0)
        with pytest.raises(StaleEpoch):
            keeper.check_map(0)
    finally:
        keeper.stop()
