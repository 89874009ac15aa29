"""A few lanes of one kind, and which of them takes the next statement.

Statements of one loop tick are gathered on one lane, up to the size of a batch, because what a
batch shares (a write to the socket, a commit) is what costs most; the next tick's go to the least
loaded lane, so that one slow statement does not hold up what comes later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shardnode.runtime.lanes import Lane, LaneLimits


class LanePool:
    """Lanes of one kind. Use from the loop's thread only."""

    def __init__(
        self,
        dsn: str,
        size: int,
        limits: LaneLimits | None = None,
        *,
        commits: bool = False,
        session: Sequence[bytes] = (),
    ) -> None:
        self._limits = limits or LaneLimits()
        self._lanes = [
            Lane(dsn, self._limits, commits=commits, session=session) for _ in range(size)
        ]
        self._boarding = self._lanes[0]
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Connect every lane."""
        await asyncio.gather(*(lane.open() for lane in self._lanes))
        self._schedule()

    def _schedule(self) -> None:
        self._watch = self._loop.call_later(self._limits.watch_s, self._on_watch)

    def _on_watch(self) -> None:
        now = self._loop.time()
        for lane in self._lanes:
            lane.look()
            lane.overdue(now)
        self._schedule()

    def pick(self) -> Lane | None:
        """Return the lane that should take a statement now; None when all are full."""
        if self._boarding.is_boarding:
            return self._boarding
        ready = [lane for lane in self._lanes if lane.is_ready]
        if not ready:
            return None
        self._boarding = min(ready, key=_load)
        return self._boarding

    @property
    def in_flight(self) -> int:
        """How many statements are under way."""
        return sum(lane.in_flight for lane in self._lanes)

    @property
    def is_connected(self) -> bool:
        """Is any lane connected?"""
        return any(lane.is_connected for lane in self._lanes)

    async def close(self) -> None:
        """Close every lane."""
        if self._watch is not None:
            self._watch.cancel()
        for lane in self._lanes:
            await lane.close()


def _load(lane: Lane) -> int:
    return lane.in_flight
