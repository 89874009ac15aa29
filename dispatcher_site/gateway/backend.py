"""The dispatcher's backend: which shards an ask goes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dispatcher_site.gateway.legs import legs_of
from dispatcher_site.gateway.many import Many
from dispatcher_site.gateway.response_cache import ResponseCache
from dispatcher_site.gateway.roads import Roads
from dispatcher_site.gateway.routing_state import RoutingKeeper
from dispatcher_site.gateway.scatter import Scatter
from dispatcher_site.gateway.shard_parts import ShardParts
from dispatcher_site.gateway.single import SingleShard
from dispatcher_site.gateway.streams import Streams
from modeldefs.kit.asks import Ask, Outcome
from modeldefs.kit.exports import Exports
from modeldefs.wire.deadlines import Deadlines

Done = Callable[[Outcome], None]


class ShardsBackend:
    """Asks the shards over their streams."""

    is_part = False

    def __init__(self, *, keeper: RoutingKeeper, streams: Streams) -> None:
        loop = asyncio.get_running_loop()
        self._roads = Roads(keeper, streams, Deadlines(), loop)
        self._exports = Exports()
        self.cache: ResponseCache | None = None

    def submit(self, ask: Ask, done: Done) -> Callable[[], None] | None:
        """Answer an ask and call ``done`` once: from the shards, or from what they answered."""
        if ask.reuse is not None and self.cache is not None and self._may_be_kept(ask):
            assert ask.served.endpoint.options.cache is not None
            return self.cache.submit(ask, ask.served.endpoint.options.cache, done)
        return self.forward(ask, done)

    def _may_be_kept(self, ask: Ask) -> bool:
        cache = ask.served.endpoint.options.cache
        if cache is None or not cache.keeps or not ask.reuse or not ask.reuse.identity:
            return False
        # What a shard that is not trusted any more has answered is given to nobody.
        nodes = self._roads.keeper.state.nodes
        return not any(node.state == "quarantined" for node in nodes.values())

    def forward(self, ask: Ask, done: Done) -> Callable[[], None] | None:
        """Ask the shards and call ``done`` once."""
        roads = self._roads
        if ask.is_export:
            return self._exports.begin(ask, ShardParts(ask, roads), done)
        key = ask.shard_key()
        work: SingleShard | Many | Scatter
        if key is not None:
            deadline = roads.loop.time() + ask.timeout_ms / 1_000
            work = SingleShard(ask, key, done, roads, deadline)
        elif ask.plan is None:
            work = Many(ask, done, roads)
        else:
            work = Scatter(ask, done, roads)
        work.begin()
        return work.give_up

    def cost(self, ask: Ask) -> int:
        """Return how many shards the ask goes to by the current map; of a batch its items."""
        shard_map = self._roads.keeper.state.shard_map
        if shard_map is None or ask.shard_key() is not None:
            return 1
        if ask.plan is None:
            return len(ask.item_keys())
        return len(legs_of(ask, shard_map, self._roads.streams))
