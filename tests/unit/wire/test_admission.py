"""The limit of requests under way: simulated servers, with a clock of their own."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from modeldefs.wire.admission import Admission, AdmissionLimits, Sample

LIMITS = AdmissionLimits(latency_floor_s=0.0, in_flight_min=4, in_flight_first=256)


@dataclass
class Server:
    """A server with some workers and one queue in front of them, and what came of its requests."""

    workers: int
    service_s: float
    deadline_s: float
    admission: Admission | None
    chance: random.Random
    took: list[tuple[float, float]] = field(default_factory=list)  # (when it came, how long)
    refused: int = 0
    later_s: float | None = None  # what the service takes after the calm, by nature
    refused_late: int = 0  # in the second half

    def run(self, rate: float, until_s: float, *, calm_rate: float) -> Server:
        """Let requests come at random, never waiting for answers: two seconds of calm first."""
        free = [0.0] * self.workers
        running: list[tuple[float, float]] = []  # (ends, came)
        now, window_end = 0.0, 0.1
        window: list[float] = []
        stuck = 0
        while now < until_s:
            now += self.chance.expovariate(rate if now > 2.0 else calm_rate)
            while window_end <= now:
                self._end(running, window_end, window)
                late = [each for each in window if each > self.deadline_s]
                stuck = len(late)
                well = [each for each in window if each <= self.deadline_s]
                if self.admission is not None:
                    self.admission.on_window(
                        [Sample("e", len(well), sum(well))],
                        stuck=stuck,
                        elapsed_s=0.1,
                        now=window_end,
                    )
                window.clear()
                window_end += 0.1
            self._end(running, now, window)
            if self.admission is not None and not self.admission.admits():
                self.refused += 1
                self.refused_late += now > until_s / 2
                continue
            begins = max(now, heapq.heappop(free))
            service_s = self.service_s if now <= 2.0 else self.later_s or self.service_s
            ends = begins + self.chance.uniform(0.8, 1.2) * service_s
            heapq.heappush(free, ends)
            heapq.heappush(running, (ends, now))
            if self.admission is not None:
                self.admission.in_flight += 1
        return self

    def _end(self, running: list[tuple[float, float]], now: float, window: list[float]) -> None:
        while running and running[0][0] <= now:
            ends, came = heapq.heappop(running)
            window.append(ends - came)
            self.took.append((came, ends - came))
            if self.admission is not None:
                self.admission.in_flight -= 1

    def good(self, after_s: float, until_s: float) -> float:
        """Return how many a second ended in time, once settled."""
        kept = [t for came, t in self.took if came >= after_s and t <= self.deadline_s]
        return len(kept) / (until_s - after_s)

    def p99_s(self, after_s: float) -> float:
        """Return the time that all but one in a hundred stayed within."""
        times = sorted(t for came, t in self.took if came >= after_s)
        return times[int(len(times) * 0.99)]


@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    workers=st.sampled_from([16, 32]),
    service_ms=st.sampled_from([20, 40]),
)
def test_at_three_times_capacity_it_does_what_it_can_and_quickly(
    seed: int, workers: int, service_ms: int
) -> None:
    """With three times what the server can do, at least nine tenths of that are done in time, and
    those that were taken on take at most twice as long as without load; without the limit next to
    nothing ends in time."""
    service_s = service_ms / 1_000
    capacity = workers / service_s
    calm = capacity * 0.3

    def server(admission: Admission | None) -> Server:
        return Server(workers, service_s, 1.0, admission, random.Random(seed))

    idle = server(None).run(calm, 4.0, calm_rate=calm)
    full = server(Admission(LIMITS)).run(capacity * 3, 9.0, calm_rate=calm)
    drowned = server(None).run(capacity * 3, 9.0, calm_rate=calm)

    assert full.good(5.0, 9.0) >= 0.9 * capacity
    assert full.p99_s(5.0) <= 2 * idle.p99_s(0.0)
    assert full.refused > 0
    assert drowned.good(5.0, 9.0) < 0.1 * capacity


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    at_once=st.integers(1, 100),
    later_ms=st.sampled_from([150, 300, 1_000, 3_000]),
)
def test_few_requests_that_are_slow_by_nature_refuse_nobody(
    seed: int, at_once: int, later_ms: int
) -> None:
    """An endpoint whose time depends on its parameters, quick first and then slow without waiting
    for anything, is no overload: the limit stays where it was."""
    admission = Admission()
    before = admission.limit
    server = Server(100_000, 0.005, 5.0, admission, random.Random(seed), later_s=later_ms / 1_000)
    server.run(at_once * 1_000 / later_ms, 12.0, calm_rate=100)

    assert 0 == server.refused
    assert admission.limit >= before


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    at_once=st.integers(260, 420),
    later_ms=st.sampled_from([150, 300, 500]),
)
def test_many_requests_that_are_slow_by_nature_get_their_room_back(
    seed: int, at_once: int, later_ms: int
) -> None:
    """Where fewer at once are no quicker, the limit is put back and refuses nobody any more."""
    admission = Admission()
    server = Server(100_000, 0.005, 5.0, admission, random.Random(seed), later_s=later_ms / 1_000)
    server.run(at_once * 1_000 / later_ms, 12.0, calm_rate=100)

    assert 0 == server.refused_late
    assert admission.limit > at_once


@given(
    windows=st.lists(
        st.tuples(st.integers(0, 500), st.floats(0, 5), st.integers(0, 100), st.integers(0, 900)),
        max_size=60,
    )
)
def test_the_limit_stays_within_its_bounds_and_keeps_the_order(
    windows: list[tuple[int, float, int, int]],
) -> None:
    """Whatever is seen, the limit keeps its bounds, and scatters get less than reads less than
    writes."""
    limits = AdmissionLimits(in_flight_min=8, in_flight_max=700)
    admission = Admission(limits)
    for n, (requests, mean_s, stuck, refused) in enumerate(windows):
        admission.refused = refused
        sample = Sample(n % 3, requests, requests * mean_s)
        admission.on_window([sample], stuck=stuck, elapsed_s=0.1, now=n * 0.1)

        assert 8 <= admission.limit <= 700
        assert 1 <= admission.scatters_max <= admission.reads_max <= admission.limit


def test_quick_requests_are_never_too_slow() -> None:
    """Requests within the floor leave the limit alone, however quick the best ones were."""
    admission = Admission(AdmissionLimits(latency_floor_s=0.1))
    before = admission.limit
    for n, mean_s in enumerate((0.0005, 0.09, 0.099)):
        admission.on_window([Sample("e", 400, 400 * mean_s)], stuck=0, elapsed_s=0.1, now=n * 0.1)

        assert admission.limit >= before


def test_one_that_answers_nothing_does_not_shrink_the_rest() -> None:
    """Requests that end at their deadline, while others go on well, do not lower the limit."""
    admission = Admission()
    before = admission.limit
    for n in range(50):
        admission.on_window([Sample("e", 100, 0.2)], stuck=40, elapsed_s=0.1, now=n * 0.1)

    assert admission.limit == before


def test_when_nothing_ends_in_time_the_limit_falls() -> None:
    """Deadlines alone, and nothing done, lower it to its bound."""
    admission = Admission()
    for n in range(100):
        admission.on_window([], stuck=60, elapsed_s=0.1, now=n * 0.1)

    assert admission.limit < 200


def test_the_order_of_who_is_refused_first() -> None:
    """At half of the limit scatters are refused, near it reads, at it writes; each is counted."""
    admission = Admission(AdmissionLimits(in_flight_first=16))

    def admitted() -> tuple[bool, bool, bool]:
        return (
            admission.admits(is_scatter=True),
            admission.admits(),
            admission.admits(is_write=True),
        )

    found = []
    for admission.in_flight in (7, 8, 13, 14, 15, 16):
        found.append(admitted())

    assert [
        (True, True, True),
        (False, True, True),
        (False, True, True),
        (False, False, True),
        (False, False, True),
        (False, False, False),
    ] == found
    assert 9 == admission.refused
