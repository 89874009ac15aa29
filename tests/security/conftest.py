"""The cluster that attacks are made on: several gunicorn workers of the front and of each node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.databases import PostgresServer
from tests.cluster.clusters import Cluster, running_clusters


@pytest.fixture(scope="package")
def attacked(postgres_server: PostgresServer, redis_url: str) -> Iterator[Cluster]:
    """Return an empty cluster of two shards with two workers of each kind."""
    workers = {"FRONT_WORKERS": "2", "NODE_WORKERS": "2"}
    with running_clusters(postgres_server, redis_url, 2, extra=workers) as running:
        yield running[2]
