"""The legs of an ask to several shards: which shards, and what each of them is sent."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from dispatcher_site.gateway.streams import Streams
from dispatcher_site.routing.planner import Leg, plan_request
from dispatcher_site.routing.shard_map import ShardMap
from modeldefs.kit.asks import Ask
from modeldefs.kit.walks import Portion, Ranges, joined, multirange, portions
from modeldefs.wire import calls
from modeldefs.wire.cursors import Stand


def legs_of(ask: Ask, shard_map: ShardMap, streams: Streams) -> Sequence[Leg]:
    """Return every leg of a read, by this map."""
    assert ask.plan is not None
    route = ask.plan.route

    def choose(shards: Sequence[str]) -> str:
        open_now = [
            shard
            for shard in shards
            if (client := streams.client(shard)) is not None and client.connected
        ]
        found = open_now or list(shards)
        if ask.reuse is not None and ask.reuse.base:
            # The tag is one shard's: whoever comes back with it must get to the same one.
            base = ask.reuse.base
            return min(found, key=lambda shard: crc32(f"{base} {shard}".encode()))
        return random.choice(found)  # noqa: S311 - spreading load, no secret

    return plan_request(
        shard_map,
        reach=route.reach,
        parameter=route.parameter,
        constants=route.constants,
        values=ask.values,
        choose=choose,
    ).legs


def portions_of(
    ask: Ask, legs: Sequence[Leg], shard_map: ShardMap
) -> tuple[list[Leg], list[Portion]]:
    """Return the legs of a walk some of whose ranges lag: one for each place that a shard's
    buckets stand at, and what it asks for."""
    by_shard = {leg.shard: leg for leg in legs}
    stand = Stand(ask.after, ask.lagging)
    found = portions(stand, [(each, joined(shard_map.ranges_of(each))) for each in by_shard])
    return [by_shard[portion.shard] for portion in found], found


def body_of(
    ask: Ask,
    leg: Leg | None,
    *,
    limit: int,
    after: list[Any] | None,
    ranges: Ranges = (),
    tag: str | None = None,
) -> bytes:
    """Return the call of a read, as bytes: the same for all legs but those with a list cut, or
    with a tag of their own."""
    values = ask.values
    if leg is not None and leg.replaced is not None:
        name, own = leg.replaced
        values = {**values, name: own}
    present = [values[name] for name in ask.served.names if name in values]
    call = calls.Call(ask.mask, present, limit, after, ask.principal.kid, ask.request_id)
    call.row_filter = ask.principal.row_filter
    if ask.trace is not None:
        call.trace = ask.trace.header
    call.about = ask.about
    call.tag = tag
    if ranges:
        call.buckets = multirange(ranges)
    return calls.encode(call)
