"""When each key was last used, and from where: noted by requests, written down beside them.

A request leaves one item in a dictionary. Every few seconds what is there is written in one
transaction, each key at most once a minute; what could not be written waits for the next time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.utils import timezone

from dispatcher_site.registry.services.keys import LAST_USED_WRITTEN_EVERY, note_keys_used

logger = logging.getLogger(__name__)

FLUSH_S = 5.0
STOP_S = 2.0
Uses = Mapping[str, tuple[datetime, str]]


class LastUsed:
    """The uses of keys in one worker process that are not written down yet."""

    def __init__(
        self,
        *,
        write: Callable[[Uses], None] = note_keys_used,
        clock: Callable[[], datetime] = timezone.now,
    ) -> None:
        self.seen: dict[str, str] = {}  # from where, by key, since the last flush
        self._write = write
        self._clock = clock
        self._waiting: dict[str, tuple[datetime, str]] = {}
        self._written: dict[str, datetime] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Write down what is left, if that is quick."""
        if self._task is not None:
            self._task.cancel()
        try:
            async with asyncio.timeout(STOP_S):
                await self.flush(every=timedelta(0))
        except TimeoutError:
            logger.warning("keys.last-use-lost")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self, *, every: timedelta = LAST_USED_WRITTEN_EVERY) -> None:
        """Write down what is due: each key that was not written for so long."""
        now = self._clock()
        seen, self.seen = self.seen, {}
        self._waiting.update((kid, (now, host)) for kid, host in seen.items())
        due = {
            kid: use
            for kid, use in self._waiting.items()
            if kid not in self._written or now - self._written[kid] >= every
        }
        if not due:
            return
        try:
            await sync_to_async(self._written_down, thread_sensitive=False)(due)
        except Exception:
            logger.warning("keys.last-use-not-written", exc_info=True)
            return
        for kid, use in due.items():
            self._written[kid] = now
            if self._waiting[kid] == use:
                del self._waiting[kid]

    def _written_down(self, uses: Uses) -> None:
        try:
            self._write(uses)
        finally:
            close_old_connections()
