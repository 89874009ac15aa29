"""Keys in a running cluster, at the front and at nodes: limits, rotation, revocation, last use,
and what clients do with a capability and the routing map.
"""

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
from engine.ports import free_port
from modeldefs.kit.buckets import bucket_of
from tests.cluster.clusters import PARTIAL, Cluster, run_manage, running_clusters
from tests.cluster.processes import await_true
from tests.cluster.smart_client import SmartClient

REVOKED_WITHIN_S = 5.0
PATH = "/get_user?limit=1"
DEFINITIONS = {"SHARDPOINT_DEFINITIONS": "modeldefs.definitions,tests.definitions_tenants"}


@pytest.fixture(scope="module")
def guarded(postgres_server: PostgresServer, redis_url: str) -> Iterator[Cluster]:
    """Return a cluster of two shards whose front has two workers."""
    extra = {"FRONT_WORKERS": "2", **DEFINITIONS}
    with running_clusters(postgres_server, redis_url, 2, extra=extra) as running:
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
        self.connection.request("GET", path, headers={"X-Api-Key": self.key, **PARTIAL})
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


def _knows(cluster: Cluster, callers: Callers, key: str, path: str = PATH) -> None:
    """Wait until all workers of the front know a new key."""
    await_true(
        lambda: all(callers(cluster.url, key).get(path)[0] == 200 for _ in range(ASKED_IN_A_ROW))
    )


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
    """At the front and at each node, on connections that were open before as on new ones, by the
    key itself as by a capability that it was traded for."""
    made = _made(guarded)
    _knows(guarded, callers, made["key"])
    smart = SmartClient(guarded.url, made["key"])
    smart.get_capability()
    smart.close()
    secrets = (made["key"], smart.capability)
    kept = [callers(url, secret) for url in _sites(guarded) for secret in secrets]
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
        requests.get(url + PATH, headers={"X-Api-Key": secret, **PARTIAL}, timeout=30)
        for url in _sites(guarded)
        for secret in secrets
    ]

    assert [401] * 6 == [status for status, _, _ in answers]
    assert ["unauthorized"] * 6 == [body["code"] for _, _, body in answers]
    assert [401] * 6 == [answer.status_code for answer in new]
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


# Written and published as a job of a person would be: the ranges are in the words of the shell.
MOVE_BUCKETS = """
from dispatcher_site.registry.services import jobs, shard_map
from dispatcher_site.trust.actors import command_actor
actor = command_actor()
epoch = shard_map.current_epoch()
shard_map.write_map(actor=actor, wanted={wanted}, after_epoch=epoch, reason="test")
jobs.create_job(actor=actor, kind="publish-map", payload={{}})
"""


@pytest.fixture
def smart(guarded: Cluster) -> Iterator[SmartClient]:
    """Return a client that has a capability and the map."""
    client = SmartClient(guarded.url, guarded.key)
    client.get_capability(scopes=["User"])
    client.get_map()
    yield client
    client.close()


def _person(number: int) -> dict[str, str]:
    return {"id": str(number), "first_name": "A", "last_name": "B", "country": "Chad",
            "address": "x", "city": "y"}  # fmt: skip


def test_a_smart_client_needs_one_hop(guarded: Cluster, smart: SmartClient) -> None:
    """By the map it writes and reads each row at the node that owns it, and the dispatcher gives
    the same row; what goes to every shard it asks the dispatcher; its map stays as it is."""
    people = [_person(710_000 + number) for number in range(8)]
    ways = []
    for person in people:
        written = smart.call("insert_user", **person)
        ways.append(list(smart.asked))
        read = smart.call("get_user", id=person["id"])
        ways.append(list(smart.asked))
        assert (200, 200) == (written.status_code, read.status_code)
        assert [person] == read.json()["items"]
        assert [person] == guarded.get("/get_user", id=person["id"]).json()["items"]
    counted = smart.call("count_users")

    assert [1] * 16 == [len(way) for way in ways]
    assert set(guarded.shard_urls) == {url for way in ways for url in way}
    assert (200, [guarded.url]) == (counted.status_code, smart.asked)
    assert 1 == counted.json()["shards"]["coverage"]
    assert 304 == smart.get_map()
    for person in people:
        assert 200 == smart.call("delete_user", id=person["id"]).status_code


def test_a_capability_may_do_at_a_node_what_was_asked_for(
    guarded: Cluster, smart: SmartClient
) -> None:
    """Narrowed to reading, a write is 403 at both sites and nothing is written; altered it is the
    401 of everybody."""
    smart.get_capability(scopes=["*:*:read"])
    person = _person(710_100)
    headers = {"X-Api-Key": smart.capability}
    refused = [
        requests.post(url + "/insert_user", json=person, headers=headers, timeout=30)
        for url in _sites(guarded)
    ]
    altered = {"X-Api-Key": smart.capability[:-2] + "AA"}
    foreign = [requests.get(url + PATH, headers=altered, timeout=30) for url in _sites(guarded)]
    junk = requests.get(guarded.url + PATH, headers={"X-Api-Key": "junk"}, timeout=30)

    assert [403] * 3 == [each.status_code for each in refused]
    assert [401] * 3 == [each.status_code for each in foreign]
    assert {junk.json()["detail"]} == {each.json()["detail"] for each in foreign}
    assert [] == guarded.get("/get_user", id=person["id"]).json()["items"]


def test_an_unreachable_node_is_gone_round(guarded: Cluster, smart: SmartClient) -> None:
    """Where a client cannot reach the owner's node the dispatcher can: the row is there once."""
    person = _person(710_200)
    for shard in smart.routing["shards"]:
        shard["url"] = f"http://127.0.0.1:{free_port()}"
    written = smart.call("insert_user", **person)

    assert (200, guarded.url) == (written.status_code, smart.asked[-1])
    assert 2 == len(smart.asked)
    assert [person] == guarded.get("/get_user", id=person["id"]).json()["items"]
    assert 200 == guarded.post("/delete_user", id=person["id"]).status_code


def test_a_stale_map_costs_a_refresh_and_a_hop(guarded: Cluster, smart: SmartClient) -> None:
    """After a bucket went to the other shard its old owner answers 421 with the newer epoch: the
    client gets the map, and the new owner does the write, once; nothing is left at the old one."""
    person = _person(710_300)
    bucket = bucket_of(person["id"])
    ranges = [tuple(each[:3]) for each in smart.routing["ranges"]]
    (old,) = [name for first, last, name in ranges if first <= bucket <= last]
    (new,) = {name for _, _, name in ranges} - {old}
    urls = {shard["name"]: shard["url"] for shard in smart.routing["shards"]}
    wanted = [
        part
        for first, last, name in ranges
        for part in (
            [(first, last, name)]
            if not first <= bucket <= last
            else [
                part
                for part in [
                    (first, bucket - 1, old),
                    (bucket, bucket, new),
                    (bucket + 1, last, old),
                ]
                if part[0] <= part[1]
            ]
        )
    ]
    epoch = smart.routing["epoch"]
    guarded.manage("shell", "-c", MOVE_BUCKETS.format(wanted=wanted))

    def asked(shard: str) -> requests.Response:
        return guarded.request("GET", f"/get_user?id={person['id']}", base=urls[shard])

    await_true(lambda: asked(old).status_code == 421 and asked(new).status_code == 200)
    written = smart.call("insert_user", **person)

    assert epoch + 1 == asked(old).json()["map_epoch"] == smart.routing["epoch"]
    assert (200, [urls[old], urls[new]]) == (written.status_code, smart.asked)
    assert [person] == asked(new).json()["items"]
    await_true(lambda: guarded.get("/get_user", id=person["id"]).json()["items"] == [person])
    assert 200 == smart.call("delete_user", id=person["id"]).status_code
    assert [urls[new]] == smart.asked


def test_a_row_filter_holds_at_the_front_and_at_nodes(guarded: Cluster, callers: Callers) -> None:
    """A key made with a filter reads, counts and exports its own rows only; what cannot be
    filtered is 403. A field that nothing filters by is refused."""
    environment = {"RUN_DIR": str(guarded.run_dir), **DEFINITIONS}
    create = ("key", "create", "--scope", "*", "--json", "--filter")
    made = json.loads(run_manage((*create, "tenant=a"), environment).stdout)
    wrong = run_manage((*create, "colour=red"), environment, check=False)
    rows = [
        {"id": str(number), "tenant": "ab"[number % 2], "name": f"{number}"}
        for number in range(1, 41)
    ]
    assert 200 == guarded.post("/open_accounts", items=rows).status_code
    _knows(guarded, callers, made["key"], "/how_many")
    headers = {"X-Api-Key": made["key"], **PARTIAL}

    def ask(url: str, path: str, **more: str) -> requests.Response:
        return requests.get(url + path, headers={**headers, **more}, timeout=30)

    assert {"tenant": "a"} == made["row_filter"]
    assert wrong.returncode != 0
    seen = set()
    for url in _sites(guarded):
        page = ask(url, "/accounts?limit=1000").json()["items"]
        lines = ask(url, "/accounts", Accept="application/jsonl").text.splitlines()
        assert {"a"} == {row["tenant"] for row in page}
        assert page == [json.loads(line) for line in lines]
        assert len(page) == ask(url, "/how_many").json()["value"]
        counted = ask(url, "/accounts?limit=1", Prefer="count=exact, partial")
        assert {"value": len(page), "exact": True} == counted.json()["count"]
        assert (403, "forbidden") == _refusal(ask(url, "/logs"))
        seen |= {row["id"] for row in page if url != guarded.url}
    assert {row["id"] for row in rows if row["tenant"] == "a"} == seen


def _refusal(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]
