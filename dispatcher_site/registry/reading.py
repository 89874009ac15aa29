"""What the fronts need to know to route, read as one consistent snapshot.

Polling is cheap: ``routing_generation`` is one row, and only when it rose is the rest worth
reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from django.db import connection, transaction

from dispatcher_site.registry.models import Shard, ShardNode
from dispatcher_site.registry.services.counters import routing_generation
from dispatcher_site.registry.services.keys import keyring
from dispatcher_site.registry.services.shard_map import (
    OwnedRange,
    current_epoch,
    current_ranges,
)
from dispatcher_site.trust.pairing import dispatcher_identity, pair_key_for
from modeldefs.wire.capabilities import CapabilityReader
from modeldefs.wire.keys import Keyring

__all__ = ["NodeAddress", "RoutingSnapshot", "routing_generation", "routing_snapshot"]


class NodeAddress(NamedTuple):
    """Where a shard's primary listens, the key both ends share, and the shard's state."""

    host: str
    port: int
    pair_key: bytes
    state: str
    alias: str
    bundle: str


@dataclass(frozen=True, slots=True)
class RoutingSnapshot:
    """Everything the data path takes from the registry, as of one generation."""

    generation: int
    epoch: int
    dispatcher: str
    ranges: tuple[OwnedRange, ...]
    nodes: Mapping[str, NodeAddress]
    keyring: Keyring


def routing_snapshot() -> RoutingSnapshot:
    """Return map, nodes and keys as of one moment."""
    with transaction.atomic():
        if not connection.in_atomic_block or not connection.savepoint_ids:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        generation = routing_generation()
        epoch = current_epoch()
        ranges = tuple(current_ranges(epoch))
        primaries = ShardNode.objects.filter(role=ShardNode.Role.PRIMARY).select_related("shard")
        nodes = {
            node.shard.name: NodeAddress(
                host=node.host,
                port=node.port,
                pair_key=pair_key_for(shard=node.shard.name, public_key=node.shard.public_key),
                state=node.shard.state,
                alias=node.shard.alias,
                bundle=node.shard.bundle_seen,
            )
            for node in primaries.exclude(shard__state=Shard.State.REMOVED)
        }
        own = dispatcher_identity()
        reader = CapabilityReader(audience=own.id, public_key=own.public.ed25519)
        keys = keyring().accepting(reader)
        return RoutingSnapshot(generation, epoch, own.id, ranges, nodes, keys)
