"""The routing map as clients get it, so that they can go straight to the owner of a row.

Shards, bucket ranges and, of each endpoint, which parameter says whose the row is; signed by the
dispatcher. The same registry gives the same bytes, whichever worker is asked: the tag is that of
these bytes. Nothing in it is a promise: nodes check every call, and refuse one by an old map.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from dispatcher_site.registry.models import Shard, ShardNode
from dispatcher_site.registry.services.counters import routing_generation
from dispatcher_site.registry.services.shard_map import current_epoch, current_ranges
from dispatcher_site.trust.pairing import dispatcher_identity
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.buckets import BUCKET_COUNT
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.direct_routes import direct_route
from modeldefs.kit.endpoints import Endpoint
from modeldefs.wire.detached_jws import detached_jws

FORMAT = 1
# What `crc16/xmodem` means: CRC16 with polynomial 0x1021, starting at 0, over the key's UTF-8.
BUCKET_FUNCTION = "crc16/xmodem"
# States in which the dispatcher itself would send calls there.
CALLABLE = (Shard.State.ACTIVE, Shard.State.DRAINING, Shard.State.DOWN)


@dataclass(frozen=True, slots=True)
class RoutingDocument:
    """The map of one moment: its bytes, their tag and their signature."""

    body: bytes
    etag: str
    signature: str


class _Newest:
    """The document of the newest generation there is, made once."""

    def __init__(self) -> None:
        self._made: tuple[int, RoutingDocument] | None = None

    def forget(self) -> None:
        """Make it anew, whatever its generation: the registry is another one."""
        self._made = None

    def document(self) -> RoutingDocument:
        """Return it."""
        # The generation first: what changes after it was read makes a newer one anyway.
        generation = routing_generation()
        if self._made is None or self._made[0] != generation:
            self._made = generation, _signed(current_catalog())
        return self._made[1]


NEWEST = _Newest()


def _signed(catalog: Catalog) -> RoutingDocument:
    identity = dispatcher_identity()
    with transaction.atomic():
        members = {"cluster": identity.id, **_members(catalog)}
    body = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    tag = hashlib.sha256(body).hexdigest()[:16]
    return RoutingDocument(
        body,
        f'"{members["epoch"]}-{catalog.bundle_id[:12]}-{tag}"',
        detached_jws(body, key_id=identity.id, sign=identity.sign),
    )


def _members(catalog: Catalog) -> dict[str, Any]:
    epoch = current_epoch()
    ranges = current_ranges(epoch)
    owners = {each.shard for each in ranges}
    primaries = ShardNode.objects.filter(role=ShardNode.Role.PRIMARY).select_related("shard")
    nodes = {node.shard.name: node for node in primaries.order_by("shard__name")}
    return {
        "format": FORMAT,
        "epoch": epoch,
        "bundle": catalog.bundle_id,
        "buckets": {"count": BUCKET_COUNT, "function": BUCKET_FUNCTION},
        "shards": [
            {
                "name": name,
                "alias": node.shard.alias,
                "url": node.url if node.shard.state in CALLABLE else None,
            }
            for name, node in nodes.items()
            if name in owners
        ],
        "ranges": [[each.first, each.last, each.shard, each.since] for each in ranges],
        "endpoints": [_endpoint(catalog, each) for each in catalog.by_number],
    }


def _endpoint(catalog: Catalog, endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    route = direct_route(catalog, endpoint)
    key = route.key
    return {
        "name": endpoint.name,
        "number": endpoint.number,
        "kind": endpoint.kind,
        "model": endpoint.model.__name__,
        "version": endpoint.version,
        "methods": list(endpoint.methods),
        "key": None
        if key is None
        else {"parameter": key.name, "type": key.type, "list": key.is_list},
        "otherwise": route.otherwise,
    }
