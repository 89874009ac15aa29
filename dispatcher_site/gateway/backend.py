"""The dispatcher's backend: which shards an ask goes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dispatcher_site.gateway.deadlines import Deadlines
from dispatcher_site.gateway.legs import legs_of
from dispatcher_site.gateway.many import Many
from dispatcher_site.gateway.routing_state import RoutingKeeper
from dispatcher_site.gateway.scatter import Scatter
from dispatcher_site.gateway.shard_parts import ShardParts
from dispatcher_site.gateway.single import SingleShard
from dispatcher_site.gateway.streams import Streams
from modeldefs.kit.asks import Ask, Outcome
from modeldefs.kit.exports import Exports

Done = Callable[[Outcome], None]


class ShardsBackend:
    """Asks the shards over their streams."""

    def __init__(self, *, keeper: RoutingKeeper, streams: Streams) -> None:
        self._keeper = keeper
        self._streams = streams
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines()
        self._exports = Exports()

    def submit(self, ask: Ask, done: Done) -> Callable[[], None] | None:
        """Ask the shards and call ``done`` once."""
        if ask.is_export:
            parts = ShardParts(ask, keeper=self._keeper, streams=self._streams, loop=self._loop)
            return self._exports.begin(ask, parts, done)
        key = ask.shard_key()
        if key is not None:
            single = SingleShard(
                ask,
                key,
                done,
                keeper=self._keeper,
                streams=self._streams,
                deadlines=self._deadlines,
                loop=self._loop,
            )
            single.begin()
            return single.give_up
        if ask.plan is None:
            many = Many(
                ask,
                done,
                keeper=self._keeper,
                streams=self._streams,
                deadlines=self._deadlines,
                loop=self._loop,
            )
            many.begin()
            return many.give_up
        scatter = Scatter(
            ask,
            done,
            keeper=self._keeper,
            streams=self._streams,
            deadlines=self._deadlines,
            loop=self._loop,
        )
        scatter.begin()
        return scatter.give_up

    def cost(self, ask: Ask) -> int:
        """Return how many shards the ask goes to by the current map; of a batch its items."""
        shard_map = self._keeper.state.shard_map
        if shard_map is None or ask.shard_key() is not None:
            return 1
        if ask.plan is None:
            return len(ask.item_keys())
        return len(legs_of(ask, shard_map, self._streams))
