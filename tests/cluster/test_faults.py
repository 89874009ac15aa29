"""What clients see when a part of the cluster dies, and that it comes back by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engine.databases import PostgresServer
from tests.cluster.clusters import Cluster, running_clusters
from tests.cluster.processes import await_true, family, pid_of


@pytest.fixture(scope="module")
def fragile(postgres_server: PostgresServer, redis_url: str) -> Iterator[Cluster]:
    """Return a cluster of two shards that these tests may break."""
    with running_clusters(postgres_server, redis_url, 2) as running:
        yield running[2]


def _people(cluster: Cluster, count: int) -> list[str]:
    ids = [str(500_000 + number) for number in range(count)]
    for each in ids:
        reply = cluster.post(
            "/insert_user", id=each, first_name="A", last_name="B", country="Sweden",
            address="x", city="y",
        )  # fmt: skip
        assert reply.status_code in (200, 409), reply.text
    return ids


def test_a_dead_shard_is_named_and_the_other_goes_on(fragile: Cluster) -> None:
    """With one node killed its keys and every scatter are 503 naming it, the other shard's keys
    still answer, nothing is silently partial, and the node comes back without help."""
    ids = _people(fragile, 12)
    owner = {each: _owner(fragile, each) for each in ids}
    lost = owner[ids[0]]
    name = f"s{fragile.shard_urls.index(lost) + 1}"

    os.kill(pid_of(fragile.run_dir, f"node-{name}"), signal.SIGKILL)
    await_true(lambda: fragile.get("/count_users").status_code == 503)
    scatter = fragile.get("/count_users")
    mine = fragile.get("/get_user", id=ids[0])
    others = [each for each in ids if owner[each] != lost]
    theirs = [fragile.get("/get_user", id=each).status_code for each in others]
    await_true(lambda: fragile.get("/count_users").status_code == 200)

    assert "shard-unavailable" == scatter.json()["code"]
    assert [name] == [fault["id"] for fault in scatter.json()["shards"]]
    assert "retry-after" in scatter.headers
    assert mine.status_code in (502, 503, 200)
    assert [200] * len(others) == theirs
    for each in ids:
        assert each == fragile.get("/get_user", id=each).json()["items"][0]["id"]


def _owner(cluster: Cluster, user: str) -> str:
    for url in cluster.shard_urls:
        if cluster.request("GET", f"/get_user?id={user}", base=url).status_code == 200:
            return url
    raise AssertionError(f"nobody owns {user}")


def test_a_stopped_shard_costs_the_deadline_and_no_more(fragile: Cluster) -> None:
    """A node that hangs makes its callers wait for their deadline, then 504 names it; woken, it
    answers again and the late answers harm nobody."""
    ids = _people(fragile, 4)
    lost = _owner(fragile, ids[0])
    name = f"s{fragile.shard_urls.index(lost) + 1}"
    workers = family(pid_of(fragile.run_dir, f"node-{name}"))
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        reply = fragile.request(
            "GET", f"/get_user?id={ids[0]}", headers={"Shardpoint-Timeout-Ms": "700"}
        )
        took_s = time.monotonic() - began_s
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    await_true(lambda: fragile.get("/get_user", id=ids[0]).status_code == 200)

    assert (504, "deadline-exceeded") == (reply.status_code, reply.json()["code"])
    assert [name] == [fault["id"] for fault in reply.json()["shards"]]
    assert 0.7 <= took_s < 5


def test_the_front_comes_back_and_nothing_acknowledged_is_lost(fragile: Cluster) -> None:
    """kill -9 of the front: it is started again, and every acknowledged row is there, once."""
    ids = _people(fragile, 20)
    for pid in family(pid_of(fragile.run_dir, "front")):
        os.kill(pid, signal.SIGKILL)

    def answers() -> bool:
        try:
            return fragile.get("/get_user", limit=1).status_code == 200
        except OSError:
            return False

    await_true(answers)
    found = [row["id"] for row in fragile.walk("/get_user", limit=7)]

    assert sorted(found) == sorted(set(found))
    assert set(ids) <= set(found)


def test_a_batch_that_a_dead_shard_cut_short_is_finished_by_its_repeat(fragile: Cluster) -> None:
    """What the other shard wrote is told as written; under the key each row is there once."""
    items = [
        {"id": str(700_000 + n), "first_name": "A", "last_name": "B", "country": "Sweden",
         "address": "x", "city": "y"}
        for n in range(40)
    ]  # fmt: skip
    key = {"Idempotency-Key": "cut-short"}
    os.kill(pid_of(fragile.run_dir, "node-s1"), signal.SIGKILL)
    first = fragile.request("POST", "/insert_users", json={"items": items}, headers=key)
    replies = [first]

    def is_finished() -> bool:
        replies.append(
            fragile.request("POST", "/insert_users", json={"items": items}, headers=key)
        )
        return replies[-1].status_code == 200

    await_true(is_finished)
    stored: list[Any] = []

    def is_read() -> bool:
        # A worker whose master was killed still answers for a moment.
        got = [fragile.get("/get_user", id=item["id"]) for item in items]
        stored[:] = [page.json().get("items") for page in got]
        return all(page.status_code == 200 for page in got)

    await_true(is_read)

    for reply in replies[:-1]:
        written = (
            reply.json()["written"] if reply.status_code != 200 else {"no": [], "unknown": []}
        )
        assert reply.status_code == 200 or written["no"] or written["unknown"]
    assert items == replies[-1].json()
    assert [[item] for item in items] == stored
