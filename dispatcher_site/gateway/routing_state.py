"""The front's own copy of what the registry says: map, nodes and keys, refreshed each second.

Requests read one immutable state; a refresh replaces it whole. A registry that cannot be read
leaves the last map in force: shards check every epoch anyway. The last keys are in force for a
while only, as a key may be revoked where this front cannot see it: then nobody is let in, with a
503 that says so, until the registry is read again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from dispatcher_site.registry.reading import (
    NodeAddress,
    RoutingSnapshot,
    routing_generation,
    routing_snapshot,
)
from dispatcher_site.routing.shard_map import BrokenMap, ShardMap
from modeldefs.kit.tuning import KEYS_AGE_S_MAX
from modeldefs.wire.keys import Keyring, Principal
from modeldefs.wire.problems import ShardUnavailable

logger = logging.getLogger(__name__)

POLL_S = 1.0
REFRESH_S_MIN = 0.05
UNREAD_RETRY_MS = 1_000


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


class UnreadKeyring(Keyring):
    """In the place of keys that are not known, or not any more."""

    def authenticate(self, header: bytes | str | None, client_host: str, now: float) -> Principal:
        """Tell nobody that they may not call: who may is not known."""
        raise ShardUnavailable(
            "The registry of keys cannot be read.", retry_after_ms=UNREAD_RETRY_MS
        )


EMPTY = RoutingState(-1, "", None, {}, UnreadKeyring())


class RoutingKeeper:
    """Keeps the state current for one worker process."""

    def __init__(
        self,
        *,
        on_change: Callable[[RoutingState], None],
        keys_age_s_max: float = KEYS_AGE_S_MAX,
        clock: Callable[[], float] = time.monotonic,
        read: Callable[[int], RoutingSnapshot | None] | None = None,
    ) -> None:
        self.state = self._read_state = EMPTY
        self._on_change = on_change
        self._keys_age_s_max = keys_age_s_max
        self._clock = clock
        self._read = read or _read
        self._read_at = clock()
        self._watching: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the registry once, then keep reading it."""
        await self._refresh()
        loop = asyncio.get_running_loop()
        self._task, self._watching = (
            loop.create_task(self._poll()),
            loop.create_task(self._watch()),
        )

    async def stop(self) -> None:
        """Stop reading."""
        for task in (self._task, self._watching, self._refreshing):
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

    async def _watch(self) -> None:
        """Look at the age of the keys on its own: a reading may hang."""
        while True:
            await asyncio.sleep(POLL_S)
            self.forget_old_keys()

    def forget_old_keys(self) -> None:
        """Let nobody in when the keys are too old to be trusted."""
        is_old = self._clock() - self._read_at > self._keys_age_s_max
        if is_old and self.state is self._read_state:
            logger.critical("routing.keys-too-old: no key is taken until the registry is read")
            self.state = replace(self._read_state, keyring=UnreadKeyring())

    async def _refresh(self) -> None:
        begun = self._clock()
        try:
            read = sync_to_async(self._read, thread_sensitive=False)
            snapshot = await read(self._read_state.generation)
        except Exception:
            logger.exception("routing.registry-unreadable")
            return
        # Two readings may overlap: the later state stays, whichever came in last.
        self._read_at = max(self._read_at, begun)
        if snapshot is not None and snapshot.generation > self._read_state.generation:
            self.state = self._read_state = state_of(snapshot)
            self._on_change(self.state)
        elif self.state is not self._read_state:
            self.state = self._read_state
        self.forget_old_keys()  # this reading may have hung for long


def _read(known: int) -> RoutingSnapshot | None:
    try:
        if routing_generation() == known:
            return None
        return routing_snapshot()
    finally:
        close_old_connections()
