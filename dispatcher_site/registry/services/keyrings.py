"""Handing the keyring to the nodes: sealed for each, newest generation only.

Idempotent: a node that has this generation or a later one is left alone. A node that cannot be
reached keeps its old keyring until the next health check finds it behind.
"""

from __future__ import annotations

import logging

from dispatcher_site.registry.clients import client_for
from dispatcher_site.registry.deadline_http import NodeUnreachable
from dispatcher_site.registry.models import Shard
from dispatcher_site.registry.services.counters import keyring_generation
from dispatcher_site.registry.services.keys import keyring
from dispatcher_site.registry.services.shards import TRUSTED
from dispatcher_site.trust.pairing import seal_for
from modeldefs.wire.problems import Problem

log = logging.getLogger("shardpoint.keyrings")


def publish_to(shard: Shard) -> int:
    """Hand the newest keyring to one shard and return its generation.

    Raises:
        NodeUnreachable: The node does not answer.
        Problem: It refuses.
    """
    ring = keyring()
    client = client_for(shard)
    client.put_keyring(
        generation=ring.generation,
        sealed=seal_for(client.identity.pair_key, ring.encode(), generation=ring.generation),
    )
    Shard.objects.filter(pk=shard.pk, keyring_generation_seen__lt=ring.generation).update(
        keyring_generation_seen=ring.generation
    )
    return ring.generation


def publish_keyring() -> list[str]:
    """Hand the newest keyring to every shard that is behind; return those that took it."""
    generation = keyring_generation()
    taken = []
    behind = Shard.objects.filter(state__in=TRUSTED, keyring_generation_seen__lt=generation)
    for shard in behind:
        try:
            publish_to(shard)
        except (NodeUnreachable, Problem) as failure:
            log.warning("keyring.not_taken %s: %s", shard.name, failure)
        else:
            taken.append(shard.name)
    return taken
