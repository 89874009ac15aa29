"""Rounds: every contender in turn, again and again, so that all meet the same weather."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.contenders import Contender, Stretch, WrongAnswer
from tests.benchmarks.drivers import DriverFailed
from tests.benchmarks.figures import Sample
from tests.benchmarks.rows import FRESH_FROM, FRESH_PER_ROUND
from tests.benchmarks.walking import WalkLost
from tests.benchmarks.workloads import Workload

WARM_S = 1.0


def say(line: str) -> None:
    """Tell the person who waits."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@dataclass(slots=True)
class Pace:
    """How many rounds of what length; gives every stretch numbers that were never used."""

    rounds: int
    seconds: float
    _serials: itertools.count[int] = field(default_factory=itertools.count)

    def stretch(
        self, *, seed: int, seconds: float | None = None, rate: float | None = None
    ) -> Stretch:
        """Return the next stretch."""
        fresh_from = FRESH_FROM + (next(self._serials) + 1) * FRESH_PER_ROUND
        return Stretch(self.seconds if seconds is None else seconds, seed, fresh_from, rate)


@dataclass(slots=True)
class Measured:
    """The samples of one workload, by contender, in the order of the rounds."""

    workload: Workload
    base: str = "pgbench"  # whom ratios are taken to
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # contender -> why


def measure(
    workload: Workload,
    contenders: Sequence[Contender],
    pace: Pace,
    *,
    base: str = "pgbench",
    rate_of: Callable[[str], float | None] = lambda _: None,
) -> Measured:
    """Check every contender, warm it up, then measure them in turn, round by round.

    A contender that answers wrongly or breaks is left out of the whole workload, and the reason
    is kept: half of its rounds would be compared with all of the others'.
    """
    measured = Measured(workload, base)
    able = [each for each in contenders if each.serves(workload)]
    say(f"{workload.title}: {', '.join(each.name for each in able)}")
    for round_number in range(pace.rounds + 1):
        # Whoever goes first meets a rested machine: the order turns with every round.
        turn = round_number % len(able) if able else 0
        for contender in [*able[turn:], *able[:turn]]:
            if contender.name in measured.left_out:
                continue
            try:
                sample = _once(workload, contender, pace, round_number, rate_of(contender.name))
            except (WrongAnswer, DriverFailed, WalkLost, OSError, AssertionError) as failure:
                measured.left_out[contender.name] = " ".join(str(failure).split())[:200]
                measured.samples.pop(contender.name, None)
                say(f"  {contender.name} is left out: {failure}")
                continue
            if sample is not None:
                measured.samples.setdefault(contender.name, []).append(sample)
                say(
                    f"  {round_number}. {contender.name:24} {sample.rate:9,.0f}/s"
                    f"  p50 {sample.p50_us:7,.0f} us  p99 {sample.p99_us:7,.0f} us"
                    f"  cpu {sum(sample.cpu_us.values()):7,.0f} us"
                    + (f"  {sample.errors} ERRORS" if sample.errors else "")
                )
    names = [each.name for each in able if each.name in measured.samples]
    measured.samples = {name: measured.samples[name] for name in names}
    return measured


def _once(
    workload: Workload, contender: Contender, pace: Pace, round_number: int, rate: float | None
) -> Sample | None:
    """Run one stretch; round 0 checks and warms up, and counts for nothing."""
    if round_number == 0:
        contender.check(workload, fresh_from=pace.stretch(seed=0).fresh_from)
        if workload.loop != "walk":
            contender.measure(workload, pace.stretch(seed=1, seconds=WARM_S, rate=rate))
        return None
    return contender.measure(workload, pace.stretch(seed=round_number, rate=rate))
