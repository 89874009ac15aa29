"""The cluster as a load and a dump see it: where rows belong, and who takes them there.

Pure: protocols only, so that the pipeline runs against any cluster that keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dispatcher_site.loading.sending import NodeRows
from dispatcher_site.loading.splitting import Routes
from dispatcher_site.registry.node_client import RowsPage


class NodeReads(Protocol):
    """What a dump asks of a shard node."""

    def rows(
        self, model: str, *, ranges: Sequence[tuple[int, int]], after: str | None, limit: int
    ) -> RowsPage:
        """Return the next rows of a model in primary key order."""


class NodeAccess(NodeRows, NodeReads, Protocol):
    """A shard node for loads and dumps."""


class Cluster(Protocol):
    """Where rows belong, and the nodes that hold them."""

    def routes(self) -> Routes:
        """Return the shard map as it is now."""

    def node(self, shard: str) -> NodeAccess:
        """Return the node of a shard."""
