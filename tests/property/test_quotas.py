"""Limits of keys: never more than was promised, however the processes learn of each other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldefs.wire.quotas import (
    KeyLimits,
    LimitsMalformed,
    Meter,
    Told,
    checked_limits,
    left_text,
    policy_text,
)

LIMITS = st.builds(
    lambda rate, window_s, burst: KeyLimits(
        rate=rate, window_s=window_s, burst=min(burst, rate) if burst else 0
    ),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(0, 40),
)


def _most_in_a_window(taken: list[tuple[float, int]], window_s: float) -> int:
    """Return the most units that any window had."""
    return max(
        sum(units for at, units in taken if begin <= at < begin + window_s)
        for begin, _ in [*taken, (0.0, 0)]
    )


@settings(max_examples=150)
@given(limits=LIMITS, gaps=st.lists(st.floats(0, 3), max_size=120), start=st.floats(0, 1e7))
def test_one_process_keeps_to_its_limits(
    limits: KeyLimits, gaps: list[float], start: float
) -> None:
    """In no window more than the rate and the burst, and who waits as told is admitted."""
    meter, now, taken = Meter(limits), start, []
    for gap in gaps:
        now += gap
        wait_s = meter.wait_s(1, now)
        if wait_s == 0:
            taken.append((now, 1))
        else:
            assert 0 == Meter.wait_s(_copy(meter), 1, now + wait_s + 1e-6)

    assert _most_in_a_window(taken, limits.window_s) <= limits.rate + limits.depth
    assert meter.total == len(taken)


def _copy(meter: Meter) -> Meter:
    copied = Meter(meter.limits)
    copied.full_at = meter.full_at
    return copied


TICK_S = 0.4  # the longest that a process in use goes on without news: a tick and its timeout


@settings(max_examples=200)
@given(data=st.data(), limits=LIMITS, processes=st.integers(2, 4))
def test_processes_that_learn_of_each_other_exceed_by_a_burst_each_at_most(
    data: st.DataObject, limits: KeyLimits, processes: int
) -> None:
    """Each process tells and learns every tick while it is in use, and hears nothing else: all
    together stay within the rate and the burst, and for each process but one another burst and
    what flows in a tick."""
    meters = [Meter(limits) for _ in range(processes)]
    used_at = [-10.0] * processes
    told: dict[str, Told] = {}
    now, taken = 1_000.0, []
    counts = [st.sampled_from([0, 0, 0, 1, 2, 5, 50])] * processes
    step = st.tuples(*counts, st.integers(1, 9))
    for *wanted, ticks in data.draw(st.lists(step, max_size=40)):
        for place, (meter, count) in enumerate(zip(meters, wanted, strict=True)):
            for _ in range(count):
                used_at[place] = now
                if meter.wait_s(1, now) == 0:
                    taken.append((now, 1))
        for _ in range(ticks):
            now += TICK_S
            for place, meter in enumerate(meters):
                if now - used_at[place] <= 2.0:
                    told[str(place)] = meter.tell()
                    others = {name: one for name, one in told.items() if name != str(place)}
                    meter.learn(others, now, processes=processes)

    excess = limits.depth + limits.rate * TICK_S / limits.window_s + 1
    most = limits.rate + limits.depth + (processes - 1) * excess
    assert _most_in_a_window(taken, limits.window_s) <= most


@settings(max_examples=150)
@given(limits=LIMITS, gaps=st.lists(st.floats(0, 3), max_size=100), share=st.integers(2, 5))
def test_processes_that_count_alone_take_their_share(
    limits: KeyLimits, gaps: list[float], share: int
) -> None:
    """Without news of the others each takes its part of the rate and of the burst, at least one
    unit; all together keep to what one may, but for the remainders."""
    meter, now, taken = Meter(limits), 5.0, []
    for gap in gaps:
        now += gap
        if meter.wait_s(1, now, share=share) == 0:
            taken.append((now, 1))

    most = (limits.rate + limits.depth) / share + 1
    assert _most_in_a_window(taken, limits.window_s) <= most


def test_what_others_used_is_gone_here_too() -> None:
    """After a tick the process that used nothing knows that nothing is left."""
    busy, idle = (Meter(KeyLimits(rate=10, window_s=60)) for _ in range(2))
    idle.learn({"a": busy.tell()}, 0.0, processes=2)
    assert all(busy.wait_s(1, 0.1) == 0 for _ in range(10))

    idle.learn({"a": busy.tell()}, 0.2, processes=2)

    assert idle.wait_s(1, 0.2) > 5
    assert 0 == idle.total


def test_totals_of_long_ago_are_no_debt() -> None:
    """Who meets a key first, or after a while, is not charged what was used before."""
    busy, late = (Meter(KeyLimits(rate=10, window_s=10)) for _ in range(2))
    for second in range(300):
        assert busy.wait_s(1, float(second)) == 0
    assert late.wait_s(1, 300.0) == 0

    late.learn({"a": busy.tell()}, 300.0, processes=2)
    assert (9, 1) == late.left(300.0)
    for second in range(300, 600):
        assert busy.wait_s(1, float(second)) == 0
    late.learn({"a": busy.tell()}, 600.0, processes=2)

    assert late.left(600.0)[0] >= 8


def test_a_process_that_falls_silent_holds_no_slot_for_ever() -> None:
    """A killed worker's calls count until it has been silent for some ticks."""
    dead, alive = (Meter(KeyLimits(concurrency=2)) for _ in range(2))
    dead.in_flight = 2
    word = dead.tell()
    alive.learn({"a": word}, 0.0, processes=2)
    assert not alive.may_begin()

    for tick in range(20):
        alive.learn({"a": word}, tick * 0.15, processes=2)

    assert alive.may_begin()


@given(text=st.one_of(st.text(max_size=40), st.binary(max_size=40)))
def test_what_is_kept_elsewhere_is_not_trusted(text: str | bytes) -> None:
    """Any bytes are what a process told, or nothing; never an error."""
    told = Told.parse(text)

    assert told is None or told == Told.parse(told.text())


def test_no_word_of_others_shuts_a_key_for_long() -> None:
    """A forged total costs a window for each process that there may be, not more."""
    meter = Meter(KeyLimits(rate=10, window_s=60))
    meter.learn({"a": Told(0, 0, 1)}, 0.0, processes=2)
    meter.learn({"a": Told(10**14, 0, 2)}, 1.0, processes=2)

    assert 60 < meter.wait_s(1, 1.0) <= 120


@pytest.mark.parametrize(
    ("wanted", "member"),
    [
        ({"burst": 5}, "burst"),
        ({"rate": 5, "burst": 6}, "burst"),
        ({"rate": 0}, "rate"),
        ({"rate": 5, "window_s": 0}, "window_s"),
        ({"concurrency": -1}, "concurrency"),
    ],
)
def test_limits_that_contradict_are_refused(wanted: dict[str, int], member: str) -> None:
    """The refusal names what is wrong."""
    whole = dict.fromkeys(("rate", "window_s", "burst", "concurrency")) | wanted

    with pytest.raises(LimitsMalformed) as refused:
        checked_limits(**whole)

    assert member == refused.value.member


def test_the_headers_say_policy_and_rest() -> None:
    """As in draft-ietf-httpapi-ratelimit-headers."""
    limits = KeyLimits(rate=1000, window_s=60, concurrency=4)
    meter = Meter(limits)
    for _ in range(588):
        meter.wait_s(1, 7.0)
    meter.in_flight = 1

    assert '"key";q=1000;w=60, "concurrent";q=4;qu="concurrent-requests"' == policy_text(limits)
    assert '"key";r=412;t=36, "concurrent";r=3' == left_text(meter, 7.0)
