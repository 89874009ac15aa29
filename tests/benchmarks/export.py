"""How fast all rows leave as JSON lines, beside ``\\copy (query) to stdout`` of the same rows.

The limit is psql's: text columns, and the same JSON made by Postgres alone. Rounds of all sides
alternate on one machine and one Postgres, which is the other workloads' too.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

from tests.benchmarks import ours, rows
from tests.benchmarks.figures import Sample
from tests.benchmarks.grounds import Grounds
from tests.benchmarks.load import psql
from tests.benchmarks.processes import Groups, metered
from tests.benchmarks.rounds import Measured, say
from tests.benchmarks.workloads import EXPORT
from tests.cluster.clusters import Cluster

TARGET = "/all_items"
RECEIVE_BYTES = 262_144
LAST_CHUNK = b"0\r\n\r\n"
COPY, COPY_JSON = "psql \\copy", "psql \\copy of JSON"
_COLUMNS = ", ".join(rows.COLUMNS)
_QUERIES = {
    COPY: f"SELECT {_COLUMNS} FROM item ORDER BY id",
    COPY_JSON: f"SELECT row_to_json(item) FROM (SELECT {_COLUMNS} FROM item ORDER BY id) item",
}


def measure_export(grounds: Grounds, *, rounds: int, shards: int) -> Measured:
    """Return all sides' samples; a request is a row, the p50 is the time to the first one."""
    measured = Measured(EXPORT, base=COPY)
    say(f"{EXPORT.title}: {rows.ROWS:,} rows")
    with ExitStack() as stack:
        alone = stack.enter_context(ours.cluster_of(grounds))
        many = stack.enter_context(ours.cluster_of(grounds, shards=shards))
        postgres = {"postgres": grounds.postgres_roots()}
        sides: dict[str, tuple[Groups, Callable[[], float]]] = {
            name: (postgres, _copying(grounds.plain_dsn, query))
            for name, query in _QUERIES.items()
        }
        for name, cluster, base in (
            ("node", alone, alone.shard_urls[0]),
            ("dispatcher, 1 shard", alone, alone.url),
            (f"dispatcher, {shards} shards", many, many.url),
        ):
            _check(cluster, base)
            sides[name] = (ours.groups_of(grounds, cluster), _exporting(cluster, base))
        for number in range(rounds):
            names = list(sides)
            turn = number % len(names)
            for name in [*names[turn:], *names[:turn]]:
                measured.samples.setdefault(name, []).append(_sample(name, number, *sides[name]))
    measured.samples = {name: measured.samples[name] for name in sides}
    return measured


def _sample(name: str, number: int, groups: Groups, once: Callable[[], float]) -> Sample:
    with metered(groups) as usage:
        began = time.perf_counter()
        first = once()
        seconds = time.perf_counter() - began
    say(
        f"  {number + 1}. {name:24} {rows.ROWS / seconds:9,.0f} rows/s, first {first * 1e3:.1f} ms"
    )
    sample = Sample(rows.ROWS, seconds, first * 1e6, 0)
    return replace(sample, cpu_us=usage.per_request_us(rows.ROWS))


def _copying(dsn: str, query: str) -> Callable[[], float]:
    command = [psql(), "-q", dsn, "-c", f"\\copy ({query}) TO STDOUT"]

    def once() -> float:
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            first = time.perf_counter() - began
            while process.stdout.read(RECEIVE_BYTES):
                pass
        assert process.returncode == 0
        return first

    return once


def _exporting(cluster: Cluster, base: str) -> Callable[[], float]:
    place = urlsplit(base)
    request = (
        f"GET {TARGET} HTTP/1.1\r\nHost: {place.netloc}\r\nAccept: application/jsonl\r\n"
        f"Authorization: Bearer {cluster.key}\r\nConnection: close\r\n\r\n"
    ).encode()

    def once() -> float:
        began = time.perf_counter()
        end = first = b""
        with socket.create_connection((place.hostname, place.port), timeout=30) as peer:
            peer.sendall(request)
            first = peer.recv(RECEIVE_BYTES)
            first_s = time.perf_counter() - began
            while block := peer.recv(RECEIVE_BYTES):
                end = (end + block)[-len(LAST_CHUNK) :]
        assert first.startswith(b"HTTP/1.1 200 OK\r\n")
        assert end == LAST_CHUNK
        return first_s

    return once


def _check(cluster: Cluster, base: str) -> None:
    """Make sure that all rows come, before anything is timed."""
    place = urlsplit(base)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
    headers = {"Accept": "application/jsonl", "Authorization": f"Bearer {cluster.key}"}
    connection.request("GET", TARGET, headers=headers)
    found = connection.getresponse().read().count(b"\n")
    connection.close()
    assert found == rows.ROWS, f"{found} rows of {rows.ROWS}"
