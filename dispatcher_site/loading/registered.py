"""The registry's cluster, for loads and dumps."""

from __future__ import annotations

import threading
from typing import Any

from django.db import close_old_connections

from dispatcher_site.loading.cluster import NodeAccess
from dispatcher_site.loading.errors import LoadStopped, NoSuchThing
from dispatcher_site.loading.splitting import Routes, routes_of
from dispatcher_site.registry.deadline_http import NodeUnreachable as NoAnswer
from dispatcher_site.registry.node_client import NodeClient, NodeIdentity, RowsPage
from dispatcher_site.registry.reading import RoutingSnapshot, routing_snapshot


class _Node:
    """A node whose silence is an ``OSError``, as that of any other peer."""

    def __init__(self, client: NodeClient) -> None:
        self._client = client

    def load_rows(self, model: str, **known: Any) -> dict[str, Any]:
        """Apply a part once and return what became of its rows."""
        try:
            return self._client.load_rows(model, **known)
        except NoAnswer as silence:
            raise ConnectionError(str(silence)) from silence

    def rows(self, model: str, **known: Any) -> RowsPage:
        """Return the next rows of a model in primary key order."""
        try:
            return self._client.rows(model, **known)
        except NoAnswer as silence:
            raise ConnectionError(str(silence)) from silence


class RegisteredCluster:
    """The cluster that the registry describes. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot: RoutingSnapshot | None = None

    def routes(self) -> Routes:
        """Return the shard map as it is now.

        Raises:
            LoadStopped: No shard owns the buckets yet.
        """
        snapshot = routing_snapshot()
        close_old_connections()
        with self._lock:
            self._snapshot = snapshot
        try:
            return routes_of(
                snapshot.epoch, ((each.first, each.last, each.shard) for each in snapshot.ranges)
            )
        except ValueError as fault:
            raise LoadStopped(f"the shard map is not complete: {fault}") from None

    def node(self, shard: str) -> NodeAccess:
        """Return the node of a shard."""
        with self._lock:
            snapshot = self._snapshot or routing_snapshot()
            self._snapshot = snapshot
        address = snapshot.nodes.get(shard)
        if address is None:
            raise NoSuchThing(f"shard {shard} has no primary node")
        return _Node(
            NodeClient(
                NodeIdentity(
                    shard=shard,
                    host=address.host,
                    port=address.port,
                    pair_key=address.pair_key,
                    key_id=snapshot.dispatcher,
                )
            )
        )
