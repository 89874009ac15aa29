"""What may follow what in the life of a job, and when a failed step is tried again.

A job is planned, runs under a lease, and ends once as done, failed or cancelled. A lease that ran
out leaves the job running, for the next worker to carry on: state never changes by a crash.

Pure: no Django, no clock, no chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

PLANNED = "planned"
RUNNING = "running"
DONE = "done"
FAILED = "failed"
CANCELLED = "cancelled"

FOLLOWS: Mapping[str, frozenset[str]] = {
    PLANNED: frozenset({RUNNING, CANCELLED}),
    RUNNING: frozenset({RUNNING, DONE, FAILED, CANCELLED}),
    DONE: frozenset(),
    FAILED: frozenset({PLANNED}),  # retried by a person
    CANCELLED: frozenset(),
}
FINAL = frozenset({DONE, CANCELLED, FAILED})

STEP_PENDING = "pending"
STEP_RUNNING = "running"
STEP_DONE = "done"
STEP_FAILED = "failed"

LEASE_S = 15.0
LEASE_RENEWED_EVERY_S = 5.0
ATTEMPTS_MAX = 8
BACKOFF_S = 1.0
BACKOFF_S_MAX = 30.0


class IllegalTransition(ValueError):
    """The job's state does not allow this."""


class StepState(NamedTuple):
    """What deciding needs to know of a step."""

    position: int
    state: str


def follow(state: str, target: str) -> str:
    """Return the target state.

    Raises:
        IllegalTransition: It may not follow this one.
    """
    if target not in FOLLOWS[state]:
        raise IllegalTransition(f"a job that is {state} cannot become {target}")
    return target


def next_position(steps: Sequence[StepState]) -> int | None:
    """Return the position of the first step that is not done, None when all are."""
    open_steps = [step.position for step in steps if step.state != STEP_DONE]
    return min(open_steps) if open_steps else None


def progress(steps: Sequence[StepState]) -> tuple[int, int]:
    """Return how many steps are done, of how many."""
    return sum(step.state == STEP_DONE for step in steps), len(steps)


def retry_after_s(attempts: int) -> float | None:
    """Return how long to wait before the next attempt, None when there is to be none.

    Args:
        attempts: How often the step was tried already, at least once.
    """
    if attempts >= ATTEMPTS_MAX:
        return None
    return min(BACKOFF_S * 2.0 ** (attempts - 1), BACKOFF_S_MAX)


def may_cancel(state: str) -> bool:
    """Say whether asking to cancel still means anything."""
    return state not in FINAL
