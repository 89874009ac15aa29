"""The front's own copy of what the registry says: map, nodes and keys, refreshed each second.

Requests read one immutable state; a refresh replaces it whole. A registry that cannot be read
leaves the last state in force: routing does not need it, and shards check every epoch anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from dispatcher_site.registry.reading import (
    NodeAddress,
    RoutingSnapshot,
    routing_generation,
    routing_snapshot,
)
from dispatcher_site.routing.shard_map import BrokenMap, ShardMap
from modeldefs.wire.keys import Keyring

logger = logging.getLogger(__name__)

POLL_S = 1.0
REFRESH_S_MIN = 0.05


@dataclass(frozen=True, slots=True)
class RoutingState:
    """One consistent view of the registry."""

    generation: int
    dispatcher: str
    shard_map: ShardMap | None  # None until shards own every bucket
    nodes: Mapping[str, NodeAddress]
    keyring: Keyring


def state_of(snapshot: RoutingSnapshot) -> RoutingState:
    """Return the state that a snapshot describes."""
    shard_map = None
    if snapshot.ranges:
        try:
            shard_map = ShardMap.of(
                snapshot.epoch, [(r[0], r[1], r[2], r[3]) for r in snapshot.ranges]
            )
        except BrokenMap:
            logger.exception("routing.broken-map")
    return RoutingState(
        snapshot.generation, snapshot.dispatcher, shard_map, snapshot.nodes, snapshot.keyring
    )


EMPTY = RoutingState(-1, "", None, {}, Keyring())


class RoutingKeeper:
    """Keeps the state current for one worker process."""

    def __init__(self, *, on_change: Callable[[RoutingState], None]) -> None:
        self.state = EMPTY
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the registry once, then keep reading it."""
        await self._refresh()
        self._task = asyncio.get_running_loop().create_task(self._poll())

    async def stop(self) -> None:
        """Stop reading."""
        for task in (self._task, self._refreshing):
            if task is not None:
                task.cancel()

    def refresh_soon(self) -> asyncio.Task[None]:
        """Read the registry now, unless that is under way; await the result if you need it."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())
        return self._refreshing

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            snapshot = await sync_to_async(_read, thread_sensitive=False)(self.state.generation)
        except Exception:
            logger.exception("routing.registry-unreadable")
            return
        # Two readings may overlap: the later state stays, whichever came in last.
        if snapshot is not None and snapshot.generation > self.state.generation:
            self.state = state_of(snapshot)
            self._on_change(self.state)


def _read(known: int) -> RoutingSnapshot | None:
    try:
        if routing_generation() == known:
            return None
        return routing_snapshot()
    finally:
        close_old_connections()
