"""Keys in a running cluster: limits, rotation, revocation, last use; at the front and at nodes."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from engine.databases import PostgresServer
from tests.cluster.clusters import Cluster, running_clusters
from tests.cluster.processes import await_true

REVOKED_WITHIN_S = 5.0
PATH = "/get_user?limit=1"


@pytest.fixture(scope="module")
def guarded(postgres_server: PostgresServer, redis_url: str) -> Iterator[Cluster]:
    """Return a cluster of two shards whose front has two workers."""
    with running_clusters(postgres_server, redis_url, 2, extra={"FRONT_WORKERS": "2"}) as running:
        yield running[2]


def _made(cluster: Cluster, *words: str) -> dict[str, Any]:
    said = cluster.manage("key", "create", "--scope", "*", "--json", *words).stdout
    made: dict[str, Any] = json.loads(said)
    return made


@dataclass
class Caller:
    """One kept-alive connection with one key."""

    connection: HTTPConnection
    key: str

    @classmethod
    def to(cls, url: str, key: str) -> Caller:
        """Return a caller of a site."""
        parts = urlsplit(url)
        return cls(HTTPConnection(parts.hostname or "", parts.port, timeout=30), key)

    def get(self, path: str = PATH) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Ask; return status, headers and body."""
        self.connection.request("GET", path, headers={"X-Api-Key": self.key})
        answer = self.connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, json.loads(answer.read())

    def is_let_in(self) -> bool:
        """Is the key taken?"""
        return self.get()[0] == 200

    @property
    def socket(self) -> socket.socket | None:
        """The connection that it keeps."""
        return self.connection.sock


@pytest.fixture
def callers() -> Iterator[Callable[[str, str], Caller]]:
    """Return what makes callers of a site with a key; their connections are closed at the end."""
    made: list[Caller] = []

    def caller(url: str, key: str) -> Caller:
        made.append(Caller.to(url, key))
        return made[-1]

    yield caller
    for one in made:
        one.connection.close()


Callers = Callable[[str, str], Caller]
ASKED_IN_A_ROW = 12  # new connections, so that every worker is among those asked


def _knows(cluster: Cluster, callers: Callers, key: str) -> None:
    """Wait until all workers of the front know a new key."""
    await_true(lambda: all(callers(cluster.url, key).is_let_in() for _ in range(ASKED_IN_A_ROW)))


def _sites(cluster: Cluster) -> list[str]:
    return [cluster.url, *cluster.shard_urls]


def test_a_limited_key_is_told_and_stopped_by_all_workers(
    guarded: Cluster, callers: Callers
) -> None:
    """Over many connections to both workers the key gets no more than rate and bursts, each
    answer says what is left, and more units help at once, everywhere."""
    made = _made(guarded, "--rate", "60", "--window-s", "3600", "--burst", "20")
    first = callers(guarded.url, made["key"])
    await_true(first.is_let_in)
    statuses = [callers(guarded.url, made["key"]).get()[0] for _ in range(60)]
    status, headers, problem = first.get()
    free = guarded.get("/get_user", limit=1)
    guarded.manage("key", "limit", made["kid"])
    await_true(first.is_let_in)

    assert (429, "quota-exceeded") == (status, problem["code"])
    assert int(headers["retry-after"]) > 1
    assert '"key";q=60;w=3600' == headers["ratelimit-policy"]
    assert headers["ratelimit"].startswith('"key";r=')
    # Each worker reads the keys by itself: one may not know the key for its first second.
    assert {200, 429} == set(statuses) - {401}
    assert statuses.count(200) <= 41  # two bursts and what came back meanwhile
    assert "ratelimit" not in free.headers
    assert "ratelimit" not in first.get()[1]
    node = callers(guarded.shard_urls[0], made["key"])
    assert 200 == node.get()[0]


def test_a_node_keeps_to_the_limits_too(guarded: Cluster, callers: Callers) -> None:
    """Called directly a node counts by itself and answers the same 429."""
    made = _made(guarded, "--rate", "5", "--window-s", "3600")
    node = callers(guarded.shard_urls[0], made["key"])
    await_true(node.is_let_in)
    answers = [node.get() for _ in range(8)]

    assert 429 == answers[-1][0]
    assert ["key"] == answers[-1][2]["violated-policies"]
    assert 1 + [status for status, _, _ in answers].count(200) <= 5


def test_a_revoked_key_is_refused_everywhere_within_five_seconds(
    guarded: Cluster, callers: Callers
) -> None:
    """At the front and at each node, on connections that were open before as on new ones."""
    made = _made(guarded)
    kept = [callers(url, made["key"]) for url in _sites(guarded)]
    for caller in kept:
        await_true(caller.is_let_in)
    sockets = [caller.socket for caller in kept]

    guarded.manage("key", "revoke", made["kid"])
    began_s = time.monotonic()
    while any(caller.is_let_in() for caller in kept):
        assert time.monotonic() - began_s < 60
    took_s = time.monotonic() - began_s
    answers = [caller.get() for caller in kept]
    new = [
        requests.get(url + PATH, headers={"X-Api-Key": made["key"]}, timeout=30)
        for url in _sites(guarded)
    ]

    assert [401] * 3 == [status for status, _, _ in answers]
    assert ["unauthorized"] * 3 == [body["code"] for _, _, body in answers]
    assert [401] * 3 == [answer.status_code for answer in new]
    assert all(sockets)
    assert sockets == [caller.socket for caller in kept]
    assert took_s < REVOKED_WITHIN_S


def test_rotation_has_an_overlap_and_one_owner(guarded: Cluster, callers: Callers) -> None:
    """Old and new key work side by side, a walk and a retried write go on under the new key, and
    the old one ends when it was told to, everywhere."""
    old = _made(guarded)
    before = callers(guarded.url, old["key"])
    _knows(guarded, callers, old["key"])
    for user in range(700_000, 700_004):
        guarded.post("/insert_user", id=str(user), first_name="A", last_name="B",
                     country="Chile", address="x", city="y")  # fmt: skip
    page = before.get("/get_user?country=Chile&limit=2")[2]
    write = {"id": "700100", "first_name": "A", "last_name": "B", "country": "Peru",
             "address": "x", "city": "y"}  # fmt: skip
    done = _insert(guarded, old["key"], write)
    said = guarded.manage("key", "rotate", old["kid"], "--overlap", "24h", "--json").stdout
    new = json.loads(said)
    after = callers(guarded.url, new["key"])
    _knows(guarded, callers, new["key"])

    rest = after.get(f"/get_user?country=Chile&limit=2&after={page['next']}")
    again = _insert(guarded, new["key"], write)
    assert before.is_let_in()
    assert (200, 2) == (rest[0], len(rest[2]["items"]))
    assert (200, 200) == (done.status_code, again.status_code)
    assert "true" == again.headers["idempotency-replayed"]

    guarded.manage("key", "rotate", old["kid"], "--overlap", "0m")
    kept = [callers(url, old["key"]) for url in _sites(guarded)]
    await_true(lambda: not any(caller.is_let_in() for caller in kept))
    assert after.is_let_in()


def _insert(cluster: Cluster, key: str, row: dict[str, str]) -> requests.Response:
    headers = {"X-Api-Key": key, "Idempotency-Key": "once-and-only"}
    return requests.post(cluster.url + "/insert_user", json=row, headers=headers, timeout=30)


def test_last_use_is_shown_and_expiry_is_kept(guarded: Cluster, callers: Callers) -> None:
    """Soon after the first call the registry knows when and from where, and a key ends by itself
    when its time has come, at the front and at nodes, without a new keyring."""
    ends = datetime.now(UTC) + timedelta(seconds=12)
    made = _made(guarded, "--expires", ends.isoformat())
    kept = [callers(url, made["key"]) for url in _sites(guarded)]
    for caller in kept:
        await_true(caller.is_let_in)

    def shown() -> dict[str, Any]:
        listed = json.loads(guarded.manage("key", "list", "--all", "--json").stdout)
        return next(key for key in listed if key["kid"] == made["kid"])

    await_true(lambda: shown()["last_used_at"] is not None)
    await_true(lambda: not any(caller.is_let_in() for caller in kept))

    assert datetime.now(UTC) >= ends
    assert "127.0.0.1" == shown()["last_used_from"]
