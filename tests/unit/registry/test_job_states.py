"""What may follow what in the life of a job."""

from __future__ import annotations

import pytest

from dispatcher_site.registry.jobs import states
from dispatcher_site.registry.jobs.states import IllegalTransition, StepState


@pytest.mark.parametrize("state", sorted(states.FOLLOWS))
def test_only_the_written_transitions_are_possible(state: str) -> None:
    """Each state leads exactly where the table says."""
    for target in states.FOLLOWS:
        if target in states.FOLLOWS[state]:
            assert states.follow(state, target) == target
        else:
            with pytest.raises(IllegalTransition):
                states.follow(state, target)


def test_done_and_cancelled_are_final() -> None:
    """Only a failed job has a second life, and only as a plan."""
    assert states.FOLLOWS[states.DONE] == states.FOLLOWS[states.CANCELLED] == frozenset()
    assert states.FOLLOWS[states.FAILED] == {states.PLANNED}


def test_the_next_step_is_the_first_that_is_not_done() -> None:
    """A step cut off while running is next, and so is one that failed."""
    steps = [StepState(0, "done"), StepState(1, "running"), StepState(2, "pending")]

    assert states.next_position(steps) == 1
    assert states.next_position(steps[:1]) is None
    assert states.progress(steps) == (1, 3)


def test_waits_double_to_a_bound_and_end() -> None:
    """Eight attempts, from one second to thirty between them."""
    waits = [states.retry_after_s(attempts) for attempts in range(1, 9)]

    assert waits == [1, 2, 4, 8, 16, 30, 30, None]


def test_a_lease_outlives_two_missed_renewals() -> None:
    """One slow statement does not lose a lease."""
    assert states.LEASE_S >= 3 * states.LEASE_RENEWED_EVERY_S
