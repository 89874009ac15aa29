"""Exports of a running cluster: whole and in order, or visibly broken, in constant memory."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
import requests

from engine.databases import PostgresServer
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.exports import EXPORTS_MAX
from tests.cluster.clusters import PARTIAL, Cluster, running_clusters
from tests.cluster.oracle import answer, same
from tests.cluster.processes import await_true, family, pid_of

# The machine may be busy with many clusters: what is tested here is not how fast it is.
LINES = {"Accept": "application/jsonl", "Shardpoint-Timeout-Ms": "30000"}
ALL_FLIGHTS = "/long_haul?miles=0"
FLIGHTS = 336_776
GROWTH_BYTES_MAX = 48 * 1024 * 1024  # of 130 MB that are exported


@pytest.fixture(scope="module")
def flying(
    postgres_server: PostgresServer, redis_url: str, flight_files: Path
) -> Iterator[Cluster]:
    """Return a cluster of two shards with all flights, which these tests may break."""
    with running_clusters(postgres_server, redis_url, 2) as running:
        cluster = running[2]
        for model, name in (("Airport", "airports.csv"), ("Flight", "flights.csv")):
            cluster.manage("load", model, str(flight_files / name))
        yield cluster


def export(cluster: Cluster, target: str, **options: Any) -> requests.Response:
    """Ask for an export, which is not read yet."""
    headers = LINES | options.pop("headers", {})
    return cluster.request("GET", target, headers=headers, stream=True, **options)


def rows_of(reply: requests.Response) -> list[dict[str, Any]]:
    """Return all rows; an export that broke off raises."""
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/jsonl"
    return [json.loads(line) for line in reply.iter_lines(1 << 16)]


class SlowClient:
    """A client that reads an export only as far as it is told to."""

    def __init__(self, cluster: Cluster, target: str) -> None:
        place = urlsplit(cluster.url)
        self._socket = socket.create_connection((place.hostname, place.port), timeout=40)
        headers = {"Authorization": f"Bearer {cluster.key}", "Connection": "close", **LINES}
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = [f"GET {target} HTTP/1.1", "Host: x", *lines, "", ""]
        self._socket.sendall("\r\n".join(head).encode())
        self._bytes = b""
        while self._bytes.count(b"\n") < 40:
            block = self._socket.recv(4_096)
            assert block, self._bytes
            self._bytes += block
        assert self._bytes.startswith(b"HTTP/1.1 200 OK\r\n")

    def rest(self) -> tuple[list[bytes], bool]:
        """Return all lines, and whether they are whole."""
        pieces = [self._bytes]
        while block := self._socket.recv(1 << 20):
            pieces.append(block)
        body = b"".join(pieces).partition(b"\r\n\r\n")[2]
        lines, at = [], 0
        while at < len(body):
            end = body.index(b"\r\n", at)
            size = int(body[at:end], 16)
            lines.append(body[end + 2 : end + 2 + size])
            at = end + 2 + size + 2
            if not size:
                return b"".join(lines).splitlines(), True
        return b"".join(lines).splitlines(), False

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@pytest.mark.usefixtures("_unblocked")
def test_exports_are_the_rows_of_one_database(
    loaded: dict[int, Cluster], catalog: Catalog
) -> None:
    """By 1, 2, 3, 5 and 8 shards, targeted, listed, scattered and reference, up and down: the
    lines are the rows of one plain database, with its types and in its order."""
    asked: list[tuple[str, dict[str, Any], str]] = [
        ("get_user", {}, ""),
        ("get_user", {"country": "Sweden"}, "country=Sweden"),
        ("late_flights", {"minutes": 300}, "minutes=300"),
        ("flights_of_plane", {"tailnum": "N725MQ"}, "tailnum=N725MQ"),
        ("flights_with_maker", {"tailnum": ["N14228", "N722MQ"]}, "tailnum=N14228&tailnum=N722MQ"),
        ("planes_by_manufacturer", {"manufacturer": "BOEING"}, "manufacturer=BOEING"),
        ("airlines", {}, ""),
        ("planes_to", {"dest": "nowhere"}, "dest=nowhere"),
    ]
    for name, arguments, query in asked:
        expected = answer(catalog.endpoints[name], arguments)
        for size, cluster in loaded.items():
            found = rows_of(export(cluster, f"/{name}?{query}"))
            assert same(expected, found), f"{name}({arguments}) on {size} shards"


@pytest.mark.usefixtures("_unblocked")
def test_every_flight_comes_once_and_in_order(
    loaded: dict[int, Cluster], catalog: Catalog, oracle_dsn: str
) -> None:
    """All 336,776 flights over 8 shards, and the memory of the front does not grow with them."""
    cluster = loaded[8]
    table = catalog.model("Flight")._meta.db_table
    with psycopg.connect(oracle_dsn) as connection:
        ids = [str(row[0]) for row in connection.execute(f'SELECT id FROM "{table}" ORDER BY id')]
    rows_of(export(cluster, ALL_FLIGHTS + "&limit=5000"))
    before = _memory(cluster)
    found = [json.loads(line)["id"] for line in export(cluster, ALL_FLIGHTS).iter_lines(1 << 16)]

    is_same = ids == found  # what differs among so many would take minutes to be told
    assert FLIGHTS == len(ids)
    assert is_same
    assert _memory(cluster) - before < GROWTH_BYTES_MAX


def _memory(cluster: Cluster) -> int:
    pages = 0
    for pid in family(pid_of(cluster.run_dir, "front")):
        pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("method", ["POST", "QUERY"])
def test_any_verb_and_a_limit_beyond_a_page(loaded: dict[int, Cluster], method: str) -> None:
    """A body does as well; a limit may be larger than a page's, and cuts exactly."""
    cluster = loaded[3]
    members = {"miles": 0, "limit": 2_345}
    reply = cluster.request(method, "/long_haul", json=members, headers=LINES)

    assert rows_of(export(cluster, ALL_FLIGHTS + "&limit=2345")) == rows_of(reply)
    assert 2_345 == len(reply.content.splitlines())
    assert "application/json" == cluster.get("/get_user", limit=1).headers["content-type"]


def test_what_has_no_lines_is_not_acceptable(loaded: dict[int, Cluster]) -> None:
    """One row, totals, groups and a write answer JSON alone; the write did not happen."""
    cluster = loaded[3]
    people = cluster.get("/count_users").json()["value"]
    for method, target in (
        ("GET", "/count_users"),
        ("GET", "/top_destinations"),
        ("GET", "/get_plane?tailnum=N14228"),
        ("POST", "/delete_user?id=1"),
    ):
        reply = cluster.request(method, target, headers=LINES)
        assert (406, "not-acceptable") == (reply.status_code, reply.json()["code"]), target

    assert people == cluster.get("/count_users").json()["value"]


def test_a_cursor_of_a_page_goes_on_as_an_export(loaded: dict[int, Cluster]) -> None:
    """``after`` takes the ``next`` of a page: together they are the whole."""
    cluster = loaded[3]
    page = cluster.get("/get_user", limit=40).json()
    rest = rows_of(export(cluster, f"/get_user?after={page['next']}"))

    assert rows_of(export(cluster, "/get_user")) == page["items"] + rest
    assert 400 == export(cluster, "/get_user?after=bent").status_code


def test_nodes_export_their_own_rows_and_say_so(loaded: dict[int, Cluster]) -> None:
    """Asked for its part each node gives what it holds, with its coverage, and nothing unasked;
    together it is all."""
    cluster = loaded[3]
    found: list[dict[str, Any]] = []
    coverage = 0.0
    for url in cluster.shard_urls:
        assert 421 == export(cluster, "/get_user", base=url).status_code
        reply = export(cluster, "/get_user", base=url, headers=PARTIAL)
        coverage += float(reply.headers["shardpoint-coverage"])
        found += rows_of(reply)
    found.sort(key=lambda row: int(row["id"]))

    assert rows_of(export(cluster, "/get_user")) == found
    assert coverage == pytest.approx(1, abs=1e-5)


def test_exports_at_once_are_bounded_and_hanging_up_makes_room(flying: Cluster) -> None:
    """One too many is 503 with a time to come back, while point reads are answered as ever; when
    a client hangs up there is room again."""
    with ExitStack() as stack:
        clients = []
        for _ in range(EXPORTS_MAX):
            clients.append(SlowClient(flying, ALL_FLIGHTS))
            stack.callback(clients[-1].close)
        refused = export(flying, ALL_FLIGHTS)
        reads = [flying.get("/get_flight", id=number).status_code for number in range(1, 30)]
        clients[0].close()
        await_true(lambda: export(flying, ALL_FLIGHTS + "&limit=1").status_code == 200)

    assert (503, "overloaded") == (refused.status_code, refused.json()["code"])
    assert "retry-after" in refused.headers
    assert {200} == set(reads)


def test_a_shard_that_dies_breaks_the_export_and_its_rest_can_be_had(flying: Cluster) -> None:
    """A node killed in mid-stream: the client sees that it is not all, which shard it was and
    where it stands; from there on it gets exactly the rest."""
    whole = [json.dumps(row["id"]) for row in rows_of(export(flying, ALL_FLIGHTS))]
    client = SlowClient(flying, ALL_FLIGHTS)
    # Were the node back before the client reads on, the export would simply go on.
    os.kill(flying.process.pid, signal.SIGSTOP)
    try:
        for pid in family(pid_of(flying.run_dir, "node-s1")):
            os.kill(pid, signal.SIGKILL)
        await_true(lambda: flying.get("/count_flights").status_code == 503)
        lines, is_whole = client.rest()
    finally:
        os.kill(flying.process.pid, signal.SIGCONT)
    client.close()
    problem = json.loads(lines.pop())["$problem"]
    replies: list[requests.Response] = []

    def goes_on() -> bool:
        replies.append(export(flying, f"{ALL_FLIGHTS}&after={quote(problem['next'])}"))
        return replies[-1].status_code == 200

    await_true(goes_on)
    rest = rows_of(replies[-1])
    got = [json.dumps(json.loads(line)["id"]) for line in lines]

    assert not is_whole
    assert ["s1"] == [fault["id"] for fault in problem["shards"]]
    assert problem["code"] in ("shard-unavailable", "shard-reset")
    assert 40 <= len(got) < FLIGHTS
    # Compared as wholes: what differs among so many would take minutes to be told.
    is_same = whole == got + [json.dumps(row["id"]) for row in rest]
    assert is_same


def test_a_client_that_reads_slowly_gets_it_all(flying: Cluster) -> None:
    """Back-pressure loses nothing: while nobody reads, the front holds a bounded part of it."""
    before = _memory(flying)
    client = SlowClient(flying, ALL_FLIGHTS)
    held = _memory(flying) - before
    lines, is_whole = client.rest()
    client.close()

    assert is_whole
    assert FLIGHTS == len(lines)
    assert held < GROWTH_BYTES_MAX
