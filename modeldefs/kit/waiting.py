"""``Prefer: wait=N``: an answer that its reader has already waits for another, for a while.

A read whose answer would be 304, or a page without rows, is read again now and then until there
is something else to tell, or the time is up: then it is told as it is. Between two reads it costs
a timer and holds no room of the process, nothing on a shard, and no more of them wait than
``WAITERS_MAX``.

Invariant: every ask ends with exactly one outcome, before its deadline; hanging up ends it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from modeldefs.kit.asks import Ask, Outcome, PageOutcome
from modeldefs.kit.replies import etag_of
from modeldefs.wire.admission import Admission
from modeldefs.wire.http1 import Cancel
from modeldefs.wire.problems import Overloaded

WAITERS_MAX = 64  # of one worker
POLL_S = 0.25
POLL_MANY_S = 1.0  # where several shards are asked each time
LAST_READ_S = 0.5  # what is left of the deadline for the last read
RETRY_AFTER_MS = 1_000

Submit = Callable[[Ask, Callable[[Outcome], None]], Cancel | None]


class Timer(Protocol):
    """What will happen later."""

    def cancel(self) -> None:
        """Let it not happen."""


class Loop(Protocol):
    """As much of an event loop as waiting takes."""

    def time(self) -> float:
        """Return the time in seconds."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call it then."""


class Waiters:
    """How many wait in one process."""

    __slots__ = ("admission", "number")

    def __init__(self, admission: Admission) -> None:
        self.admission = admission  # which has room for others while they sleep
        self.number = 0


class LongPoll:
    """One ask that waits for news."""

    __slots__ = (
        "_ask", "_asleep_since", "_cancel", "_done", "_end", "_is_over", "_loop", "_submit",
        "_timer", "_until", "_waiters",
    )  # fmt: skip

    def __init__(
        self,
        ask: Ask,
        done: Callable[[Outcome], None],
        *,
        submit: Submit,
        waiters: Waiters,
        loop: Loop,
    ) -> None:
        self._ask, self._done, self._submit = ask, done, submit
        self._waiters, self._loop = waiters, loop
        self._end = loop.time() + ask.timeout_ms / 1_000
        self._until = min(loop.time() + ask.prefers.wait_s, self._end - LAST_READ_S)
        self._cancel: Cancel | None = None
        self._timer: Timer | None = None
        self._asleep_since = 0.0
        self._is_over = False

    def begin(self) -> Cancel | None:
        """Read for the first time."""
        if self._waiters.number >= WAITERS_MAX:
            self._done(Overloaded(retry_after_ms=RETRY_AFTER_MS))
            return None
        self._waiters.number += 1
        self._read()
        return self.give_up

    def give_up(self) -> None:
        """The client is gone."""
        if not self._is_over:
            self._finish()
            if self._cancel is not None:
                self._cancel()

    def _read(self) -> None:
        self._ask.timeout_ms = max(1, int((self._end - self._loop.time()) * 1_000))
        cancel = self._submit(self._ask, self._on_outcome)
        # What was answered at once may sleep by now, or be over: its cancel is of no use.
        self._cancel = cancel if self._timer is None else None

    def _on_outcome(self, outcome: Outcome) -> None:
        if self._is_over:
            return
        self._cancel = None
        pause_s = POLL_MANY_S if self._ask.is_scatter else POLL_S
        if self._loop.time() + pause_s > self._until or not is_known(self._ask, outcome):
            self._finish()
            self._done(outcome)
            return
        self._asleep_since = self._loop.time()
        self._waiters.admission.in_flight -= 1
        self._timer = self._loop.call_later(pause_s, self._wake)

    def _wake(self) -> None:
        self._rise()
        self._read()

    def _rise(self) -> None:
        self._timer = None
        self._waiters.admission.in_flight += 1
        # No time that an answer took: it was there before.
        self._ask.waited_s += self._loop.time() - self._asleep_since

    def _finish(self) -> None:
        self._is_over = True
        self._waiters.number -= 1
        if self._timer is not None:
            self._timer.cancel()
            self._rise()


def is_known(ask: Ask, outcome: Outcome) -> bool:
    """Would the answer tell its reader nothing new: what it has, or that there is nothing?"""
    if not isinstance(outcome, PageOutcome) or outcome.shards.missing:
        return False
    if not ask.served.is_single:
        return not outcome.rows and not outcome.more
    conditions = ask.conditions
    if conditions is None or conditions.match is not None or conditions.none_match is None:
        return False
    return conditions.none_match.name(etag_of(ask, outcome.rows or b"null"))
