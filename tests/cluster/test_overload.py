"""Overload and metrics of a whole cluster: early refusals, bulkheads, counters that stay."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests

from engine.databases import PostgresServer
from tests.cluster.clusters import Cluster, running_clusters
from tests.cluster.processes import await_true

PATIENCE_S = 30.0
MINUTES_S = 150.0  # until the next minute is over, and a slow machine's share
SMALL = {
    "SHARDPOINT_IN_FLIGHT_MAX": "4",
    "SHARDPOINT_IN_FLIGHT_MIN": "4",
    "SHARDPOINT_ACCESS_LOG": "1",
}


@pytest.fixture(scope="module")
def small(postgres_server: PostgresServer, redis_url: str) -> Iterator[Cluster]:
    """Return a cluster of two shards whose front takes on four requests at once."""
    with running_clusters(postgres_server, redis_url, 2, extra=SMALL) as running:
        cluster = running[2]
        for each in range(700_000, 700_012):
            reply = cluster.post(
                "/insert_user", id=str(each), first_name="A", last_name="B", country="Sweden",
                address="Storgatan 1", city="y",
            )  # fmt: skip
            assert reply.status_code == 200, reply.text
        yield cluster


def _await(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def _pids(cluster: Cluster, process: str) -> list[int]:
    master = int((cluster.run_dir / "pids" / f"{process}.pid").read_text().split()[0])
    shown = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(master)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in shown.stdout.split()]


def _by_shard(cluster: Cluster) -> dict[str, list[str]]:
    """Return the people's ids by the name of the shard that has them."""
    found: dict[str, list[str]] = {}
    for each in map(str, range(700_000, 700_012)):
        for number, url in enumerate(cluster.shard_urls, 1):
            reply = cluster.request("GET", f"/get_user?id={each}", base=url)
            if reply.status_code == 200:
                found.setdefault(f"s{number}", []).append(each)
    return found


def _metrics(cluster: Cluster, base: str = "") -> dict[str, float]:
    reply = cluster.request("GET", "/metrics", base=base or cluster.url)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in reply.text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def _requests(metrics: dict[str, float], code: str) -> float:
    return sum(
        number
        for name, number in metrics.items()
        if name.startswith('shardpoint_requests_total{endpoint="get_user"')
        and f'code="{code}"' in name
    )


def test_a_stopped_shard_fills_its_own_room_only(small: Cluster) -> None:
    """With one shard stopped, twelve reads of its rows get two deadlines at most, the others 503
    `overloaded` with Retry-After at once; the other shard answers all the while."""
    owned = _by_shard(small)
    stopped, others = owned["s1"][0], owned["s2"]
    workers = _pids(small, "node-s1")
    before = _metrics(small)

    def read(_: int) -> requests.Response:
        headers = {"Authorization": f"Bearer {small.key}", "Shardpoint-Timeout-Ms": "2000"}
        return requests.get(
            f"{small.url}/get_user", params={"id": stopped}, headers=headers, timeout=20
        )

    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(read, n) for n in range(12)]
            # All twelve are under way until the first ten are refused, and so many are too many
            # for this front; from then on two wait for the stopped shard.
            _await(lambda: sum(each.done() for each in asked) >= 10)
            theirs = [small.get("/get_user", id=each).status_code for each in others]
            replies = [each.result() for each in asked]
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    _await(lambda: small.get("/get_user", id=stopped).status_code == 200)
    refused = [reply for reply in replies if reply.status_code == 503]
    _await(
        lambda: (
            _requests(_metrics(small), "overloaded") - _requests(before, "overloaded")
            >= len(refused)
        )
    )

    assert [200] * len(others) == theirs
    assert {"overloaded", "deadline-exceeded"} >= {reply.json()["code"] for reply in replies}
    assert 10 <= len(refused) <= 12
    assert {"overloaded"} == {reply.json()["code"] for reply in refused}
    assert {"1"} == {reply.headers["retry-after"] for reply in refused}


def test_counters_stay_when_a_worker_is_killed(small: Cluster) -> None:
    """What the front's worker had counted is still in the metrics after it was killed and another
    took its place, and new requests are added to it."""
    user = _by_shard(small)["s1"][0]
    before = _requests(_metrics(small), "ok")
    for _ in range(20):
        assert small.get("/get_user", id=user).status_code == 200
    _await(lambda: _requests(_metrics(small), "ok") >= before + 20)
    counted = _requests(_metrics(small), "ok")
    (worker,) = _pids(small, "front")

    os.kill(worker, signal.SIGKILL)
    _await(lambda: _serves(small) and _pids(small, "front") != [worker])
    after = _requests(_metrics(small), "ok")
    for _ in range(5):
        assert small.get("/get_user", id=user).status_code == 200
    _await(lambda: _requests(_metrics(small), "ok") >= counted + 5)

    assert after >= counted


def _serves(cluster: Cluster) -> bool:
    try:
        return cluster.get("/get_user", id="700000").status_code == 200
    except requests.ConnectionError:
        return False


def test_a_node_counts_what_it_ran(small: Cluster) -> None:
    """A node's metrics have the calls of the dispatcher, their rows, and its lanes."""
    user = _by_shard(small)["s1"][0]
    url = small.shard_urls[0]
    call = 'shardpoint_calls_total{endpoint="get_user",status="2xx",code="ok"}'
    rows = 'shardpoint_call_rows_total{endpoint="get_user"}'
    before = _metrics(small, url)

    for _ in range(7):
        assert small.get("/get_user", id=user).status_code == 200
    _await(lambda: _metrics(small, url)[call] >= before.get(call, 0) + 7)
    after = _metrics(small, url)

    assert after[rows] - before.get(rows, 0) >= 7
    assert after['shardpoint_lane_point_reads_total{pool="point"}'] >= 7
    assert after['shardpoint_lane_syncs_total{pool="point"}'] >= 1


def test_metrics_are_for_those_who_may(small: Cluster) -> None:
    """Without a key it is 401, with one that lacks the scope 403 naming it, with just the scope
    200; and the text holds no row and no key."""
    lacking = small.manage("key", "create", "--name", "a", "--scope", "*:get_user:read")
    having = small.manage("key", "create", "--name", "b", "--scope", "control@*:metrics:read")
    _await(
        lambda: all(
            requests.get(
                f"{base}/metrics", headers={"x-api-key": having.stdout.strip()}, timeout=20
            ).status_code
            == 200
            for base in (small.url, *small.shard_urls)
        )
    )
    for base in (small.url, *small.shard_urls):
        nobody = requests.get(f"{base}/metrics", timeout=20)
        without = requests.get(
            f"{base}/metrics", headers={"x-api-key": lacking.stdout.strip()}, timeout=20
        )
        shown = small.request("GET", "/metrics", base=base)
        posted = small.request("POST", "/metrics", base=base)

        assert (401, "unauthorized") == (nobody.status_code, nobody.json()["code"])
        assert (403, "forbidden") == (without.status_code, without.json()["code"])
        assert "control@*:metrics:read" in without.json()["detail"]
        assert 405 == posted.status_code
        for secret in ("Storgatan", "700000", small.key, small.key[9:19]):
            assert secret not in shown.text


def test_each_request_is_a_line_and_holds_no_secret(small: Cluster) -> None:
    """With the access log on, a request is one JSON line with its id and without its values."""
    reply = small.get("/get_user", id="700003")
    request_id = reply.headers["x-request-id"]
    log = small.run_dir / "logs" / "front.log"
    _await(lambda: request_id in log.read_text())
    (line,) = [line for line in log.read_text().splitlines() if request_id in line]

    assert re.search(r'"event":"request(\.slow)?","endpoint":"get_user","method":"GET"', line)
    assert '"status":200' in line
    assert "700003" not in line
    assert small.key not in line


def test_a_trace_goes_through_and_time_is_told_to_who_asks(small: Cluster) -> None:
    """The caller's trace comes back with a span of ours, a malformed one begins a new trace, on
    refusals too; Server-Timing names the shards, and neither is there unasked."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    known = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    plain = small.get("/get_user", id="700001")
    traced = small.request("GET", "/get_user?id=700001", headers=known)
    refused = small.request("GET", "/get_user?nope=1", headers=known)
    malformed = small.request("GET", "/get_user?id=700001", headers={"traceparent": "00-x"})
    timed = small.request("GET", "/count_users", headers={"Shardpoint-Timing": "1"})
    own = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0[01]")

    assert "traceparent" not in plain.headers
    assert "server-timing" not in plain.headers
    assert plain.json() == traced.json()
    for reply in (traced, refused):
        found = own.fullmatch(reply.headers["traceparent"])
        assert found is not None
        assert trace == found[1]
        assert "00f067aa0ba902b7" != found[2]
        assert "server-timing" not in reply.headers
    begun = own.fullmatch(malformed.headers["traceparent"])
    assert begun is not None
    assert trace != begun[1]
    names = [part.partition(";dur=")[0] for part in timed.headers["server-timing"].split(", ")]
    assert ["merge", "route", "s1", "s2", "total"] == sorted(names)
    log = (small.run_dir / "logs" / "front.log").read_text()
    assert f'"trace_id":"{trace}"' in log


def test_minutes_are_written_down_for_fronts_and_nodes(
    small: Cluster, postgres_server: PostgresServer
) -> None:
    """Without anyone asking, the registry has the minute's requests of the front, and of the nodes
    the same endpoint's calls with their rows."""
    for each in range(700_000, 700_012):  # of both shards
        assert small.get("/get_user", id=str(each)).status_code == 200
    registry = postgres_server.dsn(small.database.replace("sh_", "reg_", 1))
    with psycopg.connect(registry, autocommit=True) as connection:

        def sites() -> set[str]:
            asked = "SELECT DISTINCT site FROM health_endpointminute WHERE endpoint = 'get_user'"
            return {site for (site,) in connection.execute(asked)}

        await_true(lambda: sites() >= {"front", "s1", "s2"}, patience_s=MINUTES_S)
    shown = small.manage("metrics", "list", "--endpoint", "get_user", "--json").stdout
    found: list[dict[str, Any]] = json.loads(shown)

    assert {row["site"] for row in found} >= {"front", "s1", "s2"}
    assert all(row["requests"] > 0 for row in found)
    assert any(row["rows"] > 0 for row in found if row["site"] != "front")
    assert all(0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in found)
