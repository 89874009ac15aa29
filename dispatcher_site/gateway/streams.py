"""The streams of one front worker: one to each shard node, opened and closed as the map says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from dispatcher_site.gateway.routing_state import RoutingState
from dispatcher_site.registry.reading import NodeAddress
from modeldefs.kit.watching import Watch
from modeldefs.wire.meters import Table
from modeldefs.wire.sockets import socket_to
from modeldefs.wire.stream import STREAM_COLUMNS, StreamClient, StreamIdentity

logger = logging.getLogger(__name__)

SERVING_STATES = frozenset({"active", "draining"})


class Streams:
    """Streams by shard name. Use from the loop's thread only."""

    def __init__(self, bundle: str, watch: Watch | None = None) -> None:
        self._bundle = bundle
        self._watch = watch or Watch()
        self._table = Table.of("streams", STREAM_COLUMNS, ())
        self._watch.every_tick(self._on_tick)
        self._known: dict[str, tuple[NodeAddress, StreamClient]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, state: RoutingState) -> None:
        """Open what is new, reopen what moved, close what is gone."""
        if set(state.nodes) != set(self._table.rows):
            self._count()
            self._watch.relabel(self._table, sorted(state.nodes))
        for shard, address in state.nodes.items():
            known = self._known.get(shard)
            if known is not None and _same_place(known[0], address):
                self._known[shard] = (address, known[1])
                continue
            if known is not None:
                self._spawn(known[1].close())
            client = StreamClient(
                host=address.host,
                port=address.port,
                identity=StreamIdentity(state.dispatcher, shard, self._bundle, address.pair_key),
                on_state=_logger_of(shard),
                unix_path=partial(_socket_of, address),
                row=self._table.rows[shard],
            )
            client.bound(self._bound())
            self._known[shard] = (address, client)
            self._spawn(client.start())
        for shard in set(self._known) - set(state.nodes):
            self._spawn(self._known.pop(shard)[1].close())

    def _on_tick(self) -> None:
        self._count()
        bound = self._bound()
        for _, client in self._known.values():
            client.bound(bound)

    def _count(self) -> None:
        for _, client in self._known.values():
            client.fill()

    def _bound(self) -> int:
        """Return how many calls one shard may have in flight: the bulkhead.

        Of what this worker takes on at once, one shard among several may hold half, so that the
        others go on when it does not answer.
        """
        most = self._watch.tuning.shard_in_flight_max
        limit = self._watch.admission.limit
        return min(most, limit if len(self._table.rows) < 2 else max(1, limit // 2))

    def client(self, shard: str) -> StreamClient | None:
        """Return the stream to a shard that may be asked; None for one that may not."""
        known = self._known.get(shard)
        if known is None or known[0].state not in SERVING_STATES:
            return None
        return known[1]

    def is_open(self, shard: str) -> bool:
        """Would a call to a shard leave now?"""
        known = self._known.get(shard)
        return known is not None and known[1].connected

    def state_of(self, shard: str) -> str:
        """Return why a shard is not asked: its registry state, or what refused its stream."""
        known = self._known.get(shard)
        if known is None:
            return "unknown"
        if known[0].state not in SERVING_STATES:
            return known[0].state
        return known[1].last_refusal or "refused"

    async def settle(self) -> None:
        """Wait until every stream has tried to connect once."""
        while self._tasks:
            await asyncio.gather(*tuple(self._tasks), return_exceptions=True)

    async def close(self) -> None:
        """Close every stream."""
        known, self._known = self._known, {}
        await asyncio.gather(*(client.close() for _, client in known.values()))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _socket_of(address: NodeAddress) -> str | None:
    path = socket_to(address.host, address.port)
    return str(path) if path is not None else None


def _same_place(before: NodeAddress, now: NodeAddress) -> bool:
    return (before.host, before.port, before.pair_key) == (now.host, now.port, now.pair_key)


def _logger_of(shard: str) -> Callable[[bool, str], None]:
    def on_state(connected: bool, reason: str) -> None:
        event = "stream.opened" if connected else "stream.closed"
        logger.info("%s %s %s", event, shard, reason)

    return on_state
