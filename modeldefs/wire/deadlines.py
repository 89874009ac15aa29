"""The deadlines of all calls under way in one worker, looked at together.

A call is put on the list once and never taken off: it is dropped at the next look if it has ended.
So a call costs one append, and a deadline is met at most one interval late and never early.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

logger = logging.getLogger(__name__)

INTERVAL_S = 0.02


class Timed(Protocol):
    """A call under way."""

    deadline: float  # in the loop's time
    is_over: bool

    def on_deadline(self) -> None:
        """End it."""


class Deadlines:
    """The calls under way. Use from the loop's thread only."""

    def __init__(self, *, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._calls: list[Timed] = []
        self._is_watching = False

    def watch(self, call: Timed) -> None:
        """End this call at its deadline, unless it has ended by then."""
        self._calls.append(call)
        if not self._is_watching:
            self._is_watching = True
            self._loop.call_later(self._interval_s, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        calls, self._calls = self._calls, []
        for call in calls:
            if call.is_over:
                continue
            if call.deadline > now:
                self._calls.append(call)
                continue
            try:
                call.on_deadline()
            except Exception:
                logger.exception("deadline.failed")
        if self._calls:
            self._loop.call_later(self._interval_s, self._look)
        else:
            self._is_watching = False
