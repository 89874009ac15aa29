"""Shardpoint as a contender: whole clusters, started as a user starts them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks import rows
from tests.benchmarks.contenders import HttpContender
from tests.benchmarks.grounds import Grounds, forget_inserts
from tests.benchmarks.processes import below, children, memory_mb
from tests.benchmarks.traffic import Traffic
from tests.benchmarks.walking import Ask
from tests.cluster.clusters import Cluster, await_cluster, begin_cluster, end_cluster, shard_tables

DEFINITIONS = "tests.benchmarks.definitions"
TABLE = "definitions_item"
_NEXT = re.compile(rb'"next":"([^"]+)"')


@contextlib.contextmanager
def cluster_of(
    grounds: Grounds, *, shards: int = 1, front_workers: int = 1, node_workers: int = 1
) -> Iterator[Cluster]:
    """Run a cluster that holds the items."""
    extra = {
        "SHARDPOINT_DEFINITIONS": DEFINITIONS,
        "FRONT_WORKERS": str(front_workers),
        "NODE_WORKERS": str(node_workers),
    }
    cluster = begin_cluster(grounds.postgres, grounds.valkey.url, shards=shards, extra=extra)
    try:
        await_cluster(cluster)
        cluster.manage("load", "Item", str(grounds.items_csv))
        with shard_tables(grounds.postgres, cluster) as connection:
            for number in range(1, shards + 1):
                connection.execute(f"VACUUM ANALYZE s{number}.{TABLE}".encode())
        yield cluster
    finally:
        end_cluster(cluster)


def forget_our_inserts(grounds: Grounds, cluster: Cluster) -> None:
    """Remove the benchmark's own rows from every shard."""
    for number in range(1, cluster.shards + 1):
        forget_inserts(grounds.postgres.dsn(cluster.database), f"s{number}.{TABLE}")


def front_roots(cluster: Cluster) -> list[int]:
    """Return the front's top process."""
    return below(cluster.process.pid, "gunicorn", "dispatcher_site.asgi")


def node_roots(cluster: Cluster) -> list[int]:
    """Return the top process of every node."""
    return below(cluster.process.pid, "gunicorn", "shardnode.asgi")


def groups_of(grounds: Grounds, cluster: Cluster) -> dict[str, list[int]]:
    """Return the processes that a request costs CPU in."""
    return {
        "front": front_roots(cluster),
        "node": node_roots(cluster),
        "postgres": grounds.postgres_roots(),
        "others": below(cluster.process.pid, "celery"),
    }


def worker_memory(cluster: Cluster) -> dict[str, list[tuple[float, float]]]:
    """Return resident and proportional MB of every front and node worker."""
    return {
        "front worker": [memory_mb(pid) for pid in children(front_roots(cluster))],
        "node worker": [memory_mb(pid) for pid in children(node_roots(cluster))],
    }


def traffic_of(base: str, key: str) -> dict[str, Traffic]:
    """Return the requests of every workload to a front or a node."""
    place = urlsplit(base)
    host, port = str(place.hostname), int(place.port or 80)
    headers = (("Authorization", f"Bearer {key}"),)

    def read(path: str) -> Traffic:
        return Traffic(host, port, path, headers=headers)

    members = {
        "id": "<fresh>",
        "category": rows.FRESH_CATEGORY,
        "name": rows.FRESH_NAME,
        "price": rows.FRESH_PRICE,
        "stock": rows.FRESH_STOCK,
        "note": rows.FRESH_NOTE,
    }
    batch = [{**members, "id": f"<fresh>{place:02}"} for place in range(rows.BATCH_ROWS)]
    keyed = (("Content-Type", "application/json"), ("Idempotency-Key", '"bench-<fresh>"'))

    def write(path: str, body: Any) -> Traffic:
        return Traffic(host, port, path, "POST", (*headers, *keyed), json.dumps(body))

    return {
        "point": read("/get_item?id=<key>"),
        "list": read(f"/items_in?category=<category>&limit={rows.LIST_ROWS}"),
        "group": read("/count_by_category"),
        "walk": read(f"/all_items?limit={rows.PAGE_ROWS}"),
        "insert": write("/insert_item", members),
        "insert-many": write("/insert_items", {"items": batch}),
    }


def rows_of(document: Any) -> list[Mapping[str, Any]]:
    """Return the rows of any of our answers."""
    if isinstance(document, list):
        return document
    if "items" in document:
        return list(document["items"])
    value = document.get("value", document)
    if isinstance(value, list):
        return value
    if all(isinstance(inner, int) for inner in value.values()):
        return [{"category": name, "items": count} for name, count in value.items()]
    return [value]


def next_page(body: bytes, number: int) -> Ask | None:
    """Return the request for the page after this one."""
    found = _NEXT.search(body[-4_000:])
    if found is None:
        return None
    return Ask(f"/all_items?limit={rows.PAGE_ROWS}&after={found[1].decode()}")


def contender(
    name: str, base: str, key: str, groups: dict[str, list[int]], wrk: str | None
) -> HttpContender:
    """Return a front or a node as a contender."""
    return HttpContender(name, traffic_of(base, key), groups, rows_of, wrk, next_page)
