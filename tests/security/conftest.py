"""The cluster that attacks are made on: several gunicorn workers of the front and of each node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from engine.databases import PostgresServer
from tests.cluster.clusters import PARTIAL, Cluster, running_clusters
from tests.cluster.processes import await_true

ASKED_EACH = 20  # on connections of their own, and so of either worker


@pytest.fixture(scope="package")
def attacked(postgres_server: PostgresServer, redis_url: str) -> Iterator[Cluster]:
    """Return an empty cluster of two shards with two workers of each kind."""
    workers = {"FRONT_WORKERS": "2", "NODE_WORKERS": "2"}
    with running_clusters(postgres_server, redis_url, 2, extra=workers) as running:
        cluster = running[2]
        urls = (cluster.url, *cluster.shard_urls)
        await_true(lambda: all(_lets_in(cluster, url) for url in urls))
        yield cluster


def _lets_in(cluster: Cluster, url: str) -> bool:
    """Has every worker there read the keys? Until then it refuses."""
    headers = {
        "Authorization": f"Bearer {cluster.key}",
        "Shardpoint-Timeout-Ms": "30000",
        **PARTIAL,
    }
    return all(
        requests.get(url + "/count_users", headers=headers, timeout=40).ok
        for _ in range(ASKED_EACH)
    )
