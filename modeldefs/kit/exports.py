"""Exports: all rows of a read as JSON lines, in global order, in constant memory.

An export asks its sources part by part, hands out rows as soon as their place is certain, and asks
for no more while the client does not read. Invariants: what was handed out is a prefix of the
whole answer; the body is ended only when all of it was handed out; before the first row a failure
is an ordinary problem, after it the last line says which, and from which cursor to go on.

What differs between the sites is where parts come from: a ``PartsBackend``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from modeldefs.kit.asks import Ask, LinesOutcome, Outcome, Shards
from modeldefs.kit.export_merge import ExportMerge, Wanted
from modeldefs.kit.merge import OrderKey
from modeldefs.kit.wireforms import DECIMAL
from modeldefs.wire import calls
from modeldefs.wire.http1 import BodyWriter, Cancel
from modeldefs.wire.problems import (
    DeadlineExceeded,
    Internal,
    Overloaded,
    Problem,
    ResultTooLarge,
    ShardFault,
    ShardUnavailable,
)

logger = logging.getLogger(__name__)

EXPORTS_MAX = 4  # under way in one process: each holds two parts per shard
ROWS_PER_WRITE = 256
BEGIN_WITHIN_S = 30.0  # from the head of the reply to its body; who goes in between may not tell
REPLANS_MAX = 3  # without a row between them

OnPart = Callable[[int, calls.PagePart | Problem], None]
# Renders what a broken-off body ends with, from the problem and the position of its last row.
LastLine = Callable[[Problem, Any], bytes]


class PartsBackend(Protocol):
    """Where the parts of one export come from."""

    @property
    def names(self) -> list[str]:
        """The shards of the plan, by place."""

    @property
    def shards(self) -> Shards:
        """How many shards are asked, and how much of the whole they hold."""

    def plan(self) -> int:
        """Decide whom to ask, by what is known now; return how many.

        Raises:
            Problem: Nobody can be asked.
        """

    def ask(self, wanted: Wanted, timeout_ms: int, on_part: OnPart) -> None:
        """Ask for a part; ``on_part`` is called with its place and what came, never from here."""

    def forget(self) -> None:
        """Give up every part under way: none of them is heard of any more."""

    def mend(self, problem: Problem, again: Callable[[], None]) -> bool:
        """Call ``again`` later if a new plan can help; False if it cannot."""

    def final(self, problem: Problem, place: int) -> Problem:
        """Return what the client is told of a problem that could not be mended."""


class Exports:
    """The exports under way in one process."""

    def __init__(self, *, under_way_max: int = EXPORTS_MAX) -> None:
        self._max = under_way_max
        self._loop = asyncio.get_running_loop()
        self.under_way = 0

    def begin(
        self, ask: Ask, parts: PartsBackend, done: Callable[[Outcome], None]
    ) -> Cancel | None:
        """Begin one; ``done`` is called once, with a problem or when its first rows are there."""
        if self.under_way >= self._max:
            done(Overloaded("too many exports are under way here", retry_after_ms=1_000))
            return None
        self.under_way += 1
        export = Export(ask, parts, done, on_over=self._over, loop=self._loop)
        export.start()
        return export.stop

    def _over(self) -> None:
        self.under_way -= 1


class Export:
    """One export under way: the source of a body."""

    def __init__(
        self,
        ask: Ask,
        parts: PartsBackend,
        done: Callable[[Outcome], None],
        *,
        on_over: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        assert ask.plan is not None
        assert ask.plan.first is not None
        order = [OrderKey(key.descending, key.form is DECIMAL) for key in ask.plan.first.keys]
        self.last_line: LastLine = lambda problem, position: b""
        self._merge = ExportMerge(order, after=ask.after, limit=ask.limit or None)
        self._ask, self._parts = ask, parts
        self._done: Callable[[Outcome], None] | None = done
        self._on_over, self._loop = on_over, loop
        self._writer: BodyWriter | None = None
        self._failure: Problem | None = None  # came between the reply and its body
        self._is_over = self._is_mending = False
        self._replans = 0
        self._asked_at: dict[int, float] = {}  # oldest first
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Plan, and ask every source for its part behind the position."""
        self._is_mending = False
        self._asked_at.clear()
        try:
            self._merge.begin(self._parts.plan())
        except Problem as problem:
            self._fail(problem)
        else:
            self._go_on()

    # As the source of a body

    def begin(self, writer: BodyWriter) -> None:
        """Hand out what is there."""
        self._writer = writer
        if self._failure is not None:
            writer.cut(self.last_line(self._failure, self._merge.position))
        else:
            self._go_on()

    def resume(self) -> None:
        """Hand out more, and ask for more."""
        self._go_on()

    def shutdown(self) -> None:
        """Break off: the client can go on at another worker."""
        self._fail(ShardUnavailable("this worker is stopping", retry_after_ms=1_000))

    def stop(self) -> None:
        """Stop for good."""
        if not self._is_over:
            self._end()

    # Inside

    def _go_on(self) -> None:
        if self._is_over or self._is_mending:
            return
        merge, writer = self._merge, self._writer
        if self._done is not None and (merge.is_ready or merge.is_done):
            done, self._done = self._done, None
            done(LinesOutcome(self, self._parts.shards))
            if self._writer is None and not self._is_over:  # begun in there, or soon, or never
                self._loop.call_later(BEGIN_WITHIN_S, self._unless_begun)
            return
        if writer is not None:
            while not writer.is_paused and (rows := merge.hand_out(ROWS_PER_WRITE)):
                self._replans = 0
                rows.append(b"")
                writer.write(b"\n".join(rows))
            if merge.is_done:
                self._end()
                writer.end()
                return
        # Nothing is asked for a client that does not read, or whose body has not begun.
        is_waited_for = self._done is not None if writer is None else not writer.is_paused
        if is_waited_for:
            self._ask_for_more()

    def _ask_for_more(self) -> None:
        for wanted in self._merge.wanted():
            self._asked_at[wanted.place] = self._loop.time()
            self._parts.ask(wanted, self._ask.timeout_ms, self._on_part)
        self._watch()

    def _on_part(self, place: int, part: calls.PagePart | Problem) -> None:
        if self._is_over:
            return
        self._asked_at.pop(place, None)
        try:
            if isinstance(part, Problem):
                self._on_refusal(place, part)
                return
            self._merge.take(place, part.rows, part.keys, part.more)
        except Exception:
            logger.exception("export.failed", extra={"request_id": self._ask.request_id})
            self._fail(Internal())
            return
        self._go_on()

    def _on_refusal(self, place: int, problem: Problem) -> None:
        if isinstance(problem, ResultTooLarge) and self._merge.shrink(place):
            self._go_on()
            return
        # Whatever else this plan still brings is of no use: the next one begins behind the
        # position, so it fits whatever map it is made with.
        if self._replans < REPLANS_MAX and self._parts.mend(problem, self._again):
            self._replans += 1
            self._is_mending = True
            self._parts.forget()
            return
        self._fail(self._parts.final(problem, place))

    def _unless_begun(self) -> None:
        if self._writer is None:
            self.stop()

    def _again(self) -> None:
        if not self._is_over:
            self.start()

    def _fail(self, problem: Problem) -> None:
        if self._is_over:
            return
        self._end()
        done, self._done = self._done, None
        if done is not None:
            done(problem)
        elif self._writer is not None:
            self._writer.cut(self.last_line(problem, self._merge.position))
        else:
            self._failure = problem

    def _end(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        self._parts.forget()
        self._on_over()

    # Time

    def _watch(self) -> None:
        if self._timer is None and self._asked_at and not self._is_over:
            due = next(iter(self._asked_at.values())) + self._ask.timeout_ms / 1_000
            self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        late = self._loop.time() - self._ask.timeout_ms / 1_000
        names = self._parts.names
        waited = [
            ShardFault(names[place], "deadline-exceeded", self._ask.timeout_ms)
            for place, asked_at in self._asked_at.items()
            if asked_at <= late
        ]
        if waited:
            self._fail(DeadlineExceeded(shards=waited))
        else:
            self._watch()
