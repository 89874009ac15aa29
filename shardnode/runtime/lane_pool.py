"""A few lanes of one kind, and which of them takes the next statement.

Statements of one loop tick are gathered on one lane, up to the size of a batch, because what a
batch shares (a write to the socket, a commit) is what costs most; the next tick's go to the least
loaded lane, so that one slow statement does not hold up what comes later.

When all lanes are full a call may wait for room, in the order they came, for a short while only:
min(``wait_s``, a quarter of the time it has left). Then it is refused, so that its caller can
still do something else with the rest of its time.

Invariant: for every ``wait`` exactly one of ``go`` and ``refuse`` is called, in the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from modeldefs.wire.problems import Overloaded, Problem, ShardFault, ShardUnavailable
from shardnode.runtime.lane_statements import (
    IN_FLIGHT_NOW,
    LANE_COLUMNS,
    READS,
    REFUSED,
    WAITED,
    WAITING_NOW,
)
from shardnode.runtime.lanes import Lane, LaneLimits

logger = logging.getLogger(__name__)

Cancel = Callable[[], None]


class _Waiter:
    """A call without a lane yet."""

    __slots__ = ("_cancel", "_go", "_refuse", "until")

    def __init__(
        self, until: float, go: Callable[[Lane], Cancel | None], refuse: Callable[[], None]
    ) -> None:
        self.until = until
        self._go, self._refuse = go, refuse
        self._cancel: Cancel | None = None

    def board(self, lane: Lane) -> None:
        try:
            self._cancel = self._go(lane)
        except Exception:  # one broken call must not cost the others their turn
            logger.exception("lane.boarding-failed")

    def refuse(self) -> None:
        try:
            self._refuse()
        except Exception:
            logger.exception("lane.refusal-failed")

    def give_up(self) -> None:
        """Nobody waits for the answer any more: leave, or have the statement cancelled."""
        self.until = 0.0
        if self._cancel is not None:
            self._cancel()


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
        lane: type[Lane] = Lane,
    ) -> None:
        self._limits = limits or LaneLimits()
        self._row = [0] * len(LANE_COLUMNS)
        self._waiting: deque[_Waiter] = deque()
        self._lanes = [
            lane(dsn, self._limits, commits=commits, session=session, on_room=self._let_in)
            for _ in range(size)
        ]
        self._boarding = self._lanes[0]
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Connect every lane; raise what libpq says if that fails for ``open_patience_s``."""
        if self._watch is None:
            self._schedule()  # who waits meanwhile is turned away in time
        await asyncio.gather(*(self._open(lane) for lane in self._lanes if not lane.is_connected))

    async def _open(self, lane: Lane) -> None:
        # A worker that starts while Postgres recovers must not count as one that cannot boot:
        # gunicorn would stop its siblings with it.
        end = self._loop.time() + self._limits.open_patience_s
        while True:
            try:
                return await lane.open()
            except ConnectionError:
                if self._loop.time() >= end:
                    raise
                await asyncio.sleep(self._limits.reconnect_first_s)

    def _schedule(self) -> None:
        self._watch = self._loop.call_later(self._limits.watch_s, self._on_watch)

    def _on_watch(self) -> None:
        now = self._loop.time()
        for lane in self._lanes:
            lane.look()
            lane.overdue(now)
        if self._waiting:
            self._turn_away(now)
        self._schedule()

    def pick(self) -> Lane | None:
        """Return the lane that should take a statement now; None: all are full, or others wait."""
        return None if self._waiting else self._free_lane()

    def wait(
        self, deadline: float, go: Callable[[Lane], Cancel | None], refuse: Callable[[], None]
    ) -> Cancel:
        """Hand ``go`` a lane when its turn has come, or call ``refuse`` when that takes too long.

        Returns:
            What to call when nobody waits for it any more.
        """
        now = self._loop.time()
        wait_s = min(self._limits.wait_s, (deadline - now) / 4)
        waiter = _Waiter(now + wait_s, go, refuse)
        if wait_s <= 0 or len(self._waiting) >= self._limits.waiting_max:
            self._row[REFUSED] += 1
            self._loop.call_soon(waiter.refuse)
        else:
            self._row[WAITED] += 1
            self._waiting.append(waiter)
        return waiter.give_up

    def _let_in(self) -> None:
        waiting = self._waiting
        while waiting:
            lane = self._free_lane()
            if lane is None:
                return
            waiter = waiting.popleft()
            if waiter.until:
                waiter.board(lane)
            else:
                waiter.refuse()

    def _turn_away(self, now: float) -> None:
        self._let_in()  # a lane may have come back without anything to read
        late = [waiter for waiter in self._waiting if waiter.until <= now]
        if late:
            left = [waiter for waiter in self._waiting if waiter.until > now]
            self._waiting.clear()
            self._waiting.extend(left)
            self._row[REFUSED] += len(late)
            for waiter in late:
                waiter.refuse()

    def _free_lane(self) -> Lane | None:
        if self._boarding.is_boarding:
            return self._boarding
        ready = [lane for lane in self._lanes if lane.is_ready]
        if not ready:
            return None
        self._boarding = min(ready, key=_load)
        return self._boarding

    def refusal(self, shard: str) -> Problem:
        """Return why no lane was to be had: Postgres is away, or there is too much to do."""
        if self.is_connected:
            return Overloaded(retry_after_ms=1_000)
        return ShardUnavailable(shards=[ShardFault(shard, "recovering")], retry_after_ms=1_000)

    def count_reads(self, number: int) -> None:
        """Count point reads that one statement answers."""
        self._row[READS] += number

    def fill(self, row: list[int]) -> None:
        """Write down what was counted so far, and how it stands now."""
        for at, numbers in enumerate(
            zip(self._row, *(lane.row for lane in self._lanes), strict=True)
        ):
            row[at] = sum(numbers)
        row[IN_FLIGHT_NOW] = self.in_flight
        row[WAITING_NOW] = len(self._waiting)

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
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            waiter.refuse()
        for lane in self._lanes:
            await lane.close()


def _load(lane: Lane) -> int:
    return lane.in_flight
