"""When a process that ended is started again.

Pure: the clock and what happened come in, the next state comes out. A process that ran steadily
starts from the first delay again; one that keeps ending waits longer each time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How patiently a process is started again."""

    first_s: float = 0.5
    factor: float = 2.0
    longest_s: float = 15.0
    steady_after_s: float = 30.0  # having run this long, its past failures are forgotten
    failures_max: int = 12  # in a row; then it is given up


@dataclass(frozen=True, slots=True)
class Restart:
    """What to do about a process that ended."""

    failures: int  # in a row, this one included
    at: float | None  # on the clock that was passed in; None = give it up


def after_exit(
    policy: RestartPolicy, *, failures: int, started_at: float, ended_at: float
) -> Restart:
    """Return when a process that just ended starts again, None to give it up."""
    if ended_at - started_at >= policy.steady_after_s:
        failures = 0
    failures += 1
    if failures > policy.failures_max:
        return Restart(failures=failures, at=None)
    delay_s = min(policy.first_s * policy.factor ** (failures - 1), policy.longest_s)
    return Restart(failures=failures, at=ended_at + delay_s)
