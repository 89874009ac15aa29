"""How many requests one process takes on at once: more while they are quick, fewer when they slow.

Additive increase, multiplicative decrease. Once per window the time that requests took is compared
with the best that their endpoints have done; longer than ``tolerance`` times it (and longer than a
floor: requests that wait together for a tick are cheaper here, not worse) means that they waited
for each other, if there are many: at least half of the limit, or some were refused.

Whether they did wait shows when the limit has halved: what waited takes half as long then
(Little), and what takes as long as before does so by nature. That is allowed for, and the limit
put back; the allowance fades within minutes.

What is over the limit is refused at once, what weighs most for whom least first: scatters may use
half of the limit, reads seven eighths, writes all of it. Health, admin and control do not come
this way and are never counted.

Invariant: the limit stays between its bounds; a window in which nothing went wrong never lowers
it, nor do slow requests that are few; and refusals are no evidence, for they are quick whatever
the load.

Source: TCP congestion avoidance (RFC 5681, 3.1) and TCP Vegas; concurrency by Little's law.
Pure: time and what was seen are passed in.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """The bounds of the limit and how it moves, units in their names."""

    in_flight_max: int = 2_048
    in_flight_min: int = 16
    in_flight_first: int = 512
    latency_floor_s: float = 0.1  # requests this quick are never too slow
    tolerance: float = 1.5
    increase: int = 2  # by window
    decrease: float = 0.85
    window_s: float = 0.1
    helped: float = 0.7  # half the limit, and no better than this: it did not help
    best_for_s: float = 30.0  # then the best may be worse by a tenth: definitions and data grow


class Sample(NamedTuple):
    """What one endpoint did in a window: requests that ended well, and the time they took."""

    endpoint: Hashable
    requests: int
    seconds: float


@dataclass(slots=True)
class _Fall:
    """The limit is being lowered: since when, from what, and what requests took before."""

    limit: int
    slowness: float  # the time that was taken, by that which is allowed
    halved_at: float | None = None


class Admission:
    """The limit of one process, for its event loop's thread only."""

    __slots__ = (
        "_best",
        "_best_since",
        "_fall",
        "_fresh",
        "_limits",
        "_natural",
        "in_flight",
        "limit",
        "reads_max",
        "refused",
        "scatters_max",
    )

    def __init__(self, limits: AdmissionLimits | None = None) -> None:
        self._limits = limits or AdmissionLimits()
        self.in_flight = 0  # counted by whoever admits
        self.refused = 0  # since the last window
        self._best: dict[Hashable, float] = {}
        self._fresh: dict[Hashable, float] = {}  # the best since ``_best_since``
        self._best_since: float | None = None
        self._natural: dict[Hashable, float] = {}  # what they take however few they are
        self._fall: _Fall | None = None
        self._set(min(self._limits.in_flight_first, self._limits.in_flight_max))

    def admits(self, *, is_write: bool = False, is_scatter: bool = False) -> bool:
        """Say whether one more may begin; the caller counts it in ``in_flight`` if so."""
        most = self.limit if is_write else self.scatters_max if is_scatter else self.reads_max
        if self.in_flight < most:
            return True
        self.refused += 1
        return False

    def on_window(
        self, samples: Iterable[Sample], *, stuck: int, elapsed_s: float, now: float
    ) -> None:
        """Move the limit by what was seen since the last window.

        Args:
            samples: What ended well, by endpoint.
            stuck: How many ended at their deadline, one that was long enough.
            elapsed_s: How long the window was.
            now: Seconds of any clock that does not go back.
        """
        limits = self._limits
        seconds = allowed = 0.0
        requests = 0
        slow: dict[Hashable, float] = {}
        for endpoint, number, took in samples:
            if number <= 0:
                continue
            requests += number
            seconds += took
            most_s = self._allowed(endpoint, took / number)
            allowed += number * most_s
            if took > number * most_s:
                slow[endpoint] = took / number
        self._age(now)
        refused, self.refused = self.refused, 0
        at_once = max(seconds / max(elapsed_s, 1e-6), float(stuck), float(self.in_flight))
        # The mean over a window jumps where few long ones end in it: to lower it is not enough.
        is_full = refused > 0 or 2 * self.in_flight >= self.limit
        if seconds > allowed:
            if is_full and not self._is_natural(slow, seconds / allowed, seconds / requests, now):
                self._lower(at_once)
        elif stuck and not requests:
            self._lower(at_once)
        elif requests:
            self._fall = None
            if is_full or 2 * at_once >= self.limit:
                self._set(self.limit + limits.increase)

    def _lower(self, at_once: float) -> None:
        limits = self._limits
        if at_once <= limits.in_flight_min:
            return
        # Twice what ran on average is what ran at the worst: a limit above that is none.
        lower = int(min(self.limit, 2 * at_once) * limits.decrease)
        if self._fall is not None:
            lower = max(lower, self._fall.limit // 8)  # no further before we know that it helps
        self._set(lower)

    def _is_natural(
        self, slow: Mapping[Hashable, float], slowness: float, mean_s: float, now: float
    ) -> bool:
        fall = self._fall
        if fall is None:
            self._fall = _Fall(self.limit, slowness)
            return False
        if fall.halved_at is None:
            fall.slowness = max(fall.slowness, slowness)
            if 2 * self.limit <= fall.limit:
                fall.halved_at = now
            return False
        # Those that end now shall have begun since.
        if now - fall.halved_at < 1.5 * mean_s + self._limits.window_s:
            return False
        self._fall = None
        if slowness < fall.slowness * self._limits.helped:
            return False
        self._natural.update(slow)
        self._set(fall.limit)
        return True

    def _allowed(self, endpoint: Hashable, mean_s: float) -> float:
        best = self._best.get(endpoint)
        if best is None or mean_s < best:
            best = self._best[endpoint] = mean_s
        self._fresh[endpoint] = min(mean_s, self._fresh.get(endpoint, mean_s))
        usual = max(best, self._natural.get(endpoint, 0.0))
        return max(self._limits.latency_floor_s, usual * self._limits.tolerance)

    def _age(self, now: float) -> None:
        if self._best_since is None:
            self._best_since = now
        if now - self._best_since < self._limits.best_for_s:
            return
        # A tenth at most: under an overload that lasts, what is seen is not what can be.
        for endpoint, best in self._best.items():
            self._best[endpoint] = min(self._fresh.get(endpoint, best), best * 1.1)
        self._fresh.clear()
        for endpoint in list(self._natural):
            self._natural[endpoint] *= 0.9
            if self._natural[endpoint] <= self._best[endpoint]:
                del self._natural[endpoint]
        self._best_since = now

    def _set(self, limit: int) -> None:
        limits = self._limits
        self.limit = max(limits.in_flight_min, min(limits.in_flight_max, limit))
        self.reads_max = max(1, self.limit * 7 // 8)
        self.scatters_max = max(1, self.limit // 2)
