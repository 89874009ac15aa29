"""Counting the calls of limited keys, in one process.

Only keys with limits come here; what the others cost is one look at ``principal.limits``. Every
answer to a limited key says what is left, also a refusal. A slot of a limit on concurrent calls is
given back once, whatever ends the call: its reply, the end of its stream, or a client that left.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from modeldefs.wire.http1 import (
    BodySource,
    BodyWriter,
    Cancel,
    HttpReply,
    JsonReply,
    Reply,
    StreamReply,
)
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import QuotaExceeded
from modeldefs.wire.quotas import CONCURRENT_RETRY_MS, Meter, left_text


class Quotas:
    """The meters of one process, by key.

    ``share`` is how many processes count without knowing of each other: who brings their counts
    together sets it to 1 for as long as it succeeds.
    """

    def __init__(self, *, clock: Callable[[], float], share: int = 1) -> None:
        self.clock = clock
        self.share = share
        self.by_kid: dict[str, Meter] = {}
        self.used: set[str] = set()  # since somebody last looked

    def meter(self, principal: Principal) -> Meter:
        """Return the meter of a limited key; it outlives changes of the limits."""
        assert principal.limits is not None
        meter = self.by_kid.get(principal.kid)
        if meter is None:
            meter = self.by_kid[principal.kid] = Meter(principal.limits)
        elif meter.limits is not principal.limits:
            meter.limit(principal.limits)
        return meter

    def begin(self, principal: Principal, reply: Reply) -> LimitedCall:
        """Return the call of a limited key; it is not admitted yet."""
        self.used.add(principal.kid)
        return LimitedCall(self, self.meter(principal), reply)

    def forget_others(self, kids: frozenset[str]) -> None:
        """Keep these keys' meters only."""
        for kid in self.by_kid.keys() - kids:
            if self.by_kid[kid].is_idle:
                del self.by_kid[kid]


class LimitedCall:
    """One call of a limited key."""

    __slots__ = ("_holds", "_meter", "_quotas", "_reply")

    def __init__(self, quotas: Quotas, meter: Meter, reply: Reply) -> None:
        self._quotas, self._meter, self._reply = quotas, meter, reply
        self._holds = False

    def admit(self) -> None:
        """Take a slot and one unit.

        Raises:
            QuotaExceeded: There is none; nothing was taken.
        """
        meter, share = self._meter, self._quotas.share
        if not meter.may_begin(share=share):
            most = meter.limits.concurrency
            raise QuotaExceeded(
                f"{most} requests of this key may be under way at once",
                retry_after_ms=CONCURRENT_RETRY_MS,
                members={"violated-policies": ["concurrent"]},
            )
        self._take(1)
        meter.in_flight += 1
        self._holds = True

    def charge(self, units: int) -> None:
        """Take what the call costs, of which one was taken when it was admitted.

        Raises:
            QuotaExceeded: It is not there now.
        """
        if units > 1:
            self._take(units - 1, taken=1)

    def _take(self, units: int, *, taken: int = 0) -> None:
        meter, quotas = self._meter, self._quotas
        wait_s = meter.wait_s(units, quotas.clock(), share=quotas.share, taken=taken)
        if wait_s > 0:
            limits = meter.limits
            raise QuotaExceeded(
                f"the {limits.rate} units per {limits.window_s} s of this key are used up",
                retry_after_ms=math.ceil(wait_s * 1_000),
                members={"violated-policies": ["key"]},
            )

    def reply(self, answered: HttpReply) -> None:
        """Reply, and say what is left."""
        if isinstance(answered, StreamReply):
            answered.source = _HeldSource(answered.source, self.release)
        else:
            self.release()
        quotas, meter = self._quotas, self._meter
        policy = meter.policy
        left = left_text(meter, quotas.clock(), share=quotas.share).encode()
        if isinstance(answered, JsonReply):
            answered.head += b"ratelimit-policy: %b\r\nratelimit: %b\r\n" % (policy, left)
        else:
            answered.headers = [
                *answered.headers,
                (b"ratelimit-policy", policy),
                (b"ratelimit", left),
            ]
        self._reply(answered)

    def release(self) -> None:
        """Give the slot back."""
        if self._holds:
            self._holds = False
            self._meter.in_flight -= 1

    def cancelling(self, cancel: Cancel) -> Cancel:
        """Return how to give up the call."""

        def give_up() -> None:
            self.release()
            cancel()

        return give_up


class _HeldSource:
    """A source whose slot is given back when its body ends."""

    def __init__(self, source: BodySource, release: Callable[[], None]) -> None:
        self._source, self._release = source, release

    def begin(self, writer: BodyWriter) -> None:
        """Begin with a writer that notices the end."""
        self._source.begin(_HeldWriter(writer, self._release))

    def resume(self) -> None:
        """Go on."""
        self._source.resume()

    def shutdown(self) -> None:
        """End soon."""
        self._source.shutdown()

    def stop(self) -> None:
        """Stop for good."""
        self._release()
        self._source.stop()


class _HeldWriter:
    """A writer that gives a slot back at the end."""

    def __init__(self, writer: BodyWriter, release: Callable[[], None]) -> None:
        self._writer, self._release = writer, release
        self.write = writer.write

    @property
    def is_paused(self) -> bool:
        """Is what was written not read yet?"""
        return self._writer.is_paused

    def end(self) -> None:
        """End it."""
        self._release()
        self._writer.end()

    def cut(self, last: bytes) -> None:
        """Break it off."""
        self._release()
        self._writer.cut(last)
