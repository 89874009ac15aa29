"""A process that keeps ending is started again ever more patiently, and at last not at all."""

from __future__ import annotations

from engine.restarts import Restart, RestartPolicy, after_exit

POLICY = RestartPolicy(first_s=1.0, factor=2.0, longest_s=5.0, steady_after_s=30, failures_max=5)


def test_delays_double_up_to_the_longest_and_then_it_is_given_up() -> None:
    """Five quick ends in a row wait 1, 2, 4, 5 and 5 s; the sixth is the last."""
    decisions = [
        after_exit(POLICY, failures=failures, started_at=99.0, ended_at=100.0)
        for failures in range(6)
    ]

    assert [d.at for d in decisions] == [101.0, 102.0, 104.0, 105.0, 105.0, None]
    assert [d.failures for d in decisions] == [1, 2, 3, 4, 5, 6]


def test_a_steady_run_forgives_past_failures() -> None:
    """Having run for `steady_after_s`, a process starts again at the first delay."""
    decision = after_exit(POLICY, failures=5, started_at=100.0, ended_at=130.0)

    assert decision == Restart(failures=1, at=131.0)
