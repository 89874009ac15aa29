"""How often a key may call, and how many calls at once: pure decisions about limits.

A limit of ``rate`` per ``window_s`` with a ``burst`` is a bucket of ``burst`` units that refills
at ``rate / window_s`` (GCRA): one process never admits more than ``rate + burst`` in any window. A
process counts in its own ``Meter`` and learns of the others' counts a tick later, so what all
admit may exceed that, by at most one ``burst`` and a tick's rate for each process but one. That
excess is a debt: it is paid back before anything more is admitted. While nobody tells of the
others a meter assumes that each of them admits as much as itself.

Pure: no framework, no clock, no I/O; time is passed in, in seconds of any clock that only rises.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

RATE_MAX = 100_000_000
WINDOW_S_MAX = 86_400
CONCURRENCY_MAX = 100_000
PROCESSES_MAX = 256
CONCURRENT_RETRY_MS = 1_000
OTHERS_MAX = 1_024
LISTENING_S = 2.0  # who learned no longer ago knows all who count
SILENT_TELLINGS_MAX = 16  # how often a process may repeat itself until it counts as gone
NEW_TELLINGS_MAX = 32  # who told more often was known before, and came back


class LimitsMalformed(ValueError):
    """Limits that contradict each other; ``member`` names which one is wrong."""

    def __init__(self, member: str, text: str) -> None:
        super().__init__(text)
        self.member = member


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a key may use; 0 is no limit."""

    rate: int = 0  # units per window
    window_s: int = 60
    burst: int = 0  # units at once; 0 with a rate: the whole rate
    concurrency: int = 0

    @property
    def depth(self) -> int:
        """How many units may be used at once."""
        return self.burst or self.rate


def checked_limits(
    *, rate: int | None, window_s: int | None, burst: int | None, concurrency: int | None
) -> KeyLimits | None:
    """Return the limits that somebody asked for; None for none.

    Raises:
        LimitsMalformed: They make no sense.
    """
    for member, value, most in (
        ("rate", rate, RATE_MAX),
        ("window_s", window_s, WINDOW_S_MAX),
        ("burst", burst, RATE_MAX),
        ("concurrency", concurrency, CONCURRENCY_MAX),
    ):
        if value is not None and not 1 <= value <= most:
            raise LimitsMalformed(member, f"{member} is 1 to {most}")
    if rate is None and burst is not None:
        raise LimitsMalformed("burst", "a burst needs a rate")
    if rate is not None and burst is not None and burst > rate:
        raise LimitsMalformed("burst", "a burst is at most the rate of a whole window")
    if rate is None and concurrency is None:
        return None
    return KeyLimits(
        rate=rate or 0, window_s=window_s or 60, burst=burst or 0, concurrency=concurrency or 0
    )


class Told(NamedTuple):
    """What a process tells the others of one key: numbers that only it writes."""

    total: int  # units admitted since the process began
    in_flight: int
    telling: int  # another one each time

    def text(self) -> str:
        """Return it as others read it."""
        return f"{self.total}:{self.in_flight}:{self.telling}"

    @classmethod
    def parse(cls, text: bytes | str) -> Told | None:
        """Return what ``text`` wrote; None for anything else: where it is kept is not trusted."""
        told = text.decode("ascii", "replace") if isinstance(text, bytes) else text
        parts = told.split(":")
        if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) < 16 for p in parts):
            return None
        return cls(*map(int, parts))


class _Other:
    """What is known of another process."""

    __slots__ = ("silent", "told")

    def __init__(self, told: Told) -> None:
        self.told = told
        self.silent = 0


class Meter:
    """What one process knows of the use of one key."""

    __slots__ = (
        "_learned_at",
        "_others",
        "_telling",
        "full_at",
        "in_flight",
        "limits",
        "others_in_flight",
        "policy",
        "total",
    )

    def __init__(self, limits: KeyLimits) -> None:
        self.limit(limits)
        self.full_at = -math.inf  # when the bucket is, or was, full again
        self.total = 0
        self.in_flight = 0
        self.others_in_flight = 0
        self._others: dict[str, _Other] = {}
        self._telling = 0
        self._learned_at = -math.inf

    def limit(self, limits: KeyLimits) -> None:
        """Keep to other limits from now on; what was used stays used."""
        self.limits = limits
        self.policy = policy_text(limits).encode()

    def wait_s(self, units: int, now: float, *, share: int = 1, taken: int = 0) -> float:
        """Take units and return 0, or take none and return how long to wait for them.

        Args:
            units: More than the bucket holds are taken once it is full, and leave a debt.
            now: The clock.
            share: How many processes count without knowing of each other, this one included.
            taken: Units that the same call took before: with them too a full bucket is enough.
        """
        limits = self.limits
        if limits.rate:
            interval_s = limits.window_s / limits.rate
            begins = self.full_at if self.full_at > now else now
            charged = units * share
            needed = min(charged, max(0, limits.depth - taken * share))
            # A thousandth of a unit: sums of floats are not quite what they should be.
            wait_s = begins - now - (limits.depth - needed + 0.001) * interval_s
            if wait_s > 0:
                return wait_s
            self.full_at = begins + charged * interval_s
        self.total += units
        return 0.0

    def may_begin(self, *, share: int = 1) -> bool:
        """Is one more call at once within the limit?"""
        most = self.limits.concurrency
        if not most:
            return True
        if share > 1:
            return self.in_flight < max(1, most // share)
        return self.in_flight + self.others_in_flight < most

    def tell(self) -> Told:
        """Return what the others shall know."""
        self._telling += 1
        return Told(self.total, self.in_flight, self._telling)

    def learn(self, others: Mapping[str, Told], now: float, *, processes: int) -> None:
        """Take in what the other processes told; it can only make less of what is left.

        Args:
            others: By the name of a process; at most OTHERS_MAX.
            now: The clock.
            processes: How many there may be; bounds what their word can do.
        """
        since, self._learned_at = self._learned_at, now
        if len(self._others) > OTHERS_MAX:
            # Processes come and go: those that nobody tells of any more make room.
            self._others = {n: each for n, each in self._others.items() if n in others}
        units = 0
        in_flight = 0
        for name, told in others.items():
            other = self._others.get(name)
            if other is None:
                other = self._others[name] = _Other(told)
                # What it used before we listened may be long ago; else it is new and so is that.
                if now - since < LISTENING_S and told.telling <= NEW_TELLINGS_MAX:
                    units += min(told.total, self.limits.depth)
            elif other.told.telling == told.telling:
                other.silent += 1
            else:
                before, other.told, other.silent = other.told.total, told, 0
                units += told.total - before if told.total >= before else told.total
            if other.silent < SILENT_TELLINGS_MAX:
                in_flight += told.in_flight
        self.others_in_flight = in_flight
        if units and self.limits.rate and since > -math.inf:
            # Used at some time since we last listened, and refilled ever since.
            interval_s = self.limits.window_s / self.limits.rate
            most = now + self.limits.depth * interval_s * min(processes, PROCESSES_MAX)
            begins = max(self.full_at, since)
            self.full_at = max(self.full_at, min(begins + units * interval_s, most))

    def left(self, now: float, *, share: int = 1) -> tuple[int, int]:
        """Return how many units are left, and in how many seconds all are."""
        limits = self.limits
        fills_s = max(0.0, self.full_at - now)
        units = limits.depth - fills_s * limits.rate / limits.window_s + 0.001
        return max(0, int(units // share)), math.ceil(fills_s)

    @property
    def is_idle(self) -> bool:
        """Is nothing under way, here or as far as we know elsewhere?"""
        return not self.in_flight and not self.others_in_flight


def policy_text(limits: KeyLimits) -> str:
    """Return the value of ``RateLimit-Policy``."""
    parts = []
    if limits.rate:
        parts.append(f'"key";q={limits.rate};w={limits.window_s}')
    if limits.concurrency:
        parts.append(f'"concurrent";q={limits.concurrency};qu="concurrent-requests"')
    return ", ".join(parts)


def left_text(meter: Meter, now: float, *, share: int = 1) -> str:
    """Return the value of ``RateLimit``."""
    parts = []
    if meter.limits.rate:
        units, full_in_s = meter.left(now, share=share)
        parts.append(f'"key";r={units};t={full_in_s}')
    if most := meter.limits.concurrency:
        free = max(0, most - meter.in_flight - meter.others_in_flight)
        parts.append(f'"concurrent";r={free}')
    return ", ".join(parts)
