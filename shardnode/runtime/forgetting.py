"""Forgetting keys whose time has passed: a walk over their table, a few pages at a time.

There is no index on the age of a key: every write would pay for it, and the walk needs none. Each
step looks at one range of pages by their place, deletes what is old in it, and goes on behind it;
at the end it begins again. Two workers that walk at once only find less to do.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lane_statements import LaneError

logger = logging.getLogger(__name__)

_STEP = b"""
WITH gone AS (
    DELETE FROM sp_idempotency
    WHERE ctid >= format('(%s,0)', $1::bigint)::tid
      AND ctid < format('(%s,0)', $1::bigint + $2::bigint)::tid
      AND created < now() - CASE WHEN hop THEN $4::interval ELSE $3::interval END
    RETURNING 1)
SELECT count(*), pg_relation_size('sp_idempotency') / current_setting('block_size')::bigint
FROM gone
"""


@dataclass(frozen=True, slots=True)
class ForgettingLimits:
    """How long keys are kept, and how quickly the walk goes."""

    key_kept_s: int = 24 * 3600  # a client's key
    hop_kept_s: int = 600  # one that the dispatcher made for its own retry
    pages_per_step: int = 256  # 2 MiB
    pause_s: float = 5.0  # after a step that found nothing
    pause_busy_s: float = 0.5  # after one that did
    step_deadline_s: float = 5.0


class Forgetting:
    """Walks for one worker process, on its write lanes."""

    def __init__(self, lanes: LanePool, limits: ForgettingLimits | None = None) -> None:
        self._lanes = lanes
        self._limits = limits or ForgettingLimits()
        self._loop = asyncio.get_running_loop()
        self._page = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def start(self) -> None:
        """Begin to walk."""
        self._pause(self._limits.pause_s)

    def stop(self) -> None:
        """Take no further step."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _pause(self, seconds: float) -> None:
        if not self._is_over:
            self._timer = self._loop.call_later(seconds, self._step)

    def _step(self) -> None:
        limits = self._limits
        lane = self._lanes.pick()
        if lane is None:
            self._pause(limits.pause_s)
            return
        numbers = (self._page, limits.pages_per_step)
        ages = (limits.key_kept_s, limits.hop_kept_s)
        lane.send(
            name=b"forget",
            sql=_STEP,
            params=[*(b"%d" % number for number in numbers), *(b"%d s" % age for age in ages)],
            deadline=self._loop.time() + limits.step_deadline_s,
            done=self._on_step,
        )

    def _on_step(self, result: Any, error: LaneError | None) -> None:
        limits = self._limits
        if error is not None:
            logger.info("keys.not-forgotten", extra={"sqlstate": error.sqlstate})
            self._pause(limits.pause_s)
            return
        found, pages = int(result.get_value(0, 0)), int(result.get_value(0, 1))
        self._page += limits.pages_per_step
        if self._page >= pages:
            self._page = 0
        self._pause(limits.pause_busy_s if found else limits.pause_s)
