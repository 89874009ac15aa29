"""One clock for the deadlines of all connections of an event loop.

Connections set ``deadline`` as often as they like, for free; the sweeper looks at all of them a
few times a second. So a deadline is met up to one interval late, and never early.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

logger = logging.getLogger(__name__)

SWEEP_S_MAX = 1.0


class Deadlined(Protocol):
    """What a sweeper watches."""

    deadline: float  # in the loop's time

    def on_deadline(self) -> None:
        """Do what is due; called again each interval until the deadline is moved."""


class Sweeper:
    """Watches connections while there are any."""

    def __init__(self, *, interval_s: float = SWEEP_S_MAX) -> None:
        self.interval_s = interval_s
        self.now = 0.0  # the loop's time as of the last look, at most one interval ago
        self._watched: set[Deadlined] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watched: Deadlined) -> None:
        """Watch this one too."""
        self._watched.add(watched)
        if self._timer is None:
            self.now = asyncio.get_running_loop().time()
            self._schedule()

    def discard(self, watched: Deadlined) -> None:
        """Stop watching this one."""
        self._watched.discard(watched)

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.interval_s, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self.now = asyncio.get_running_loop().time()
        for watched in tuple(self._watched):
            if watched.deadline <= now:
                try:
                    watched.on_deadline()
                except Exception:
                    logger.exception("http.deadline_failed")
        if self._watched:
            self._schedule()
