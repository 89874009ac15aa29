"""A control client for a registered shard."""

from __future__ import annotations

from dispatcher_site.registry.models import Shard, ShardNode
from dispatcher_site.registry.node_client import NodeClient, NodeIdentity
from dispatcher_site.trust.pairing import dispatcher_id, pair_key_for
from modeldefs.wire.problems import ShardUnavailable


def client_for(shard: Shard) -> NodeClient:
    """Return a client for the shard's primary.

    Raises:
        ShardUnavailable: It has no primary.
    """
    node = shard.nodes.filter(role=ShardNode.Role.PRIMARY).first()
    if node is None:
        raise ShardUnavailable(f"Shard {shard.name} has no primary node.")
    return NodeClient(
        NodeIdentity(
            shard=shard.name,
            host=node.host,
            port=node.port,
            pair_key=pair_key_for(shard=shard.name, public_key=shard.public_key),
            key_id=dispatcher_id(),
        )
    )
