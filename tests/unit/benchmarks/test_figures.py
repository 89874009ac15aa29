"""What rounds say together is right: medians, ratios within a round, errors never lost."""

from __future__ import annotations

import pytest

from tests.benchmarks.figures import Sample, percentile, rate_ratio, summarise, value_ratio


def sample(requests: int, *, errors: int = 0, **cpu_us: float) -> Sample:
    """Return a sample of one second."""
    return Sample(requests, 1.0, p50_us=10, p99_us=20, errors=errors, cpu_us=cpu_us)


@pytest.mark.parametrize(
    "share, expected",
    [(0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (1.0, 100)],
)
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    """It is the smallest value that so many do not exceed, and never one in between."""
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


@pytest.mark.parametrize("values, share", [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_is_refused(values: list[float], share: float) -> None:
    """No samples have no latency."""
    with pytest.raises(ValueError, match="quantile"):
        percentile(values, share)


def test_a_summary_holds_medians_and_all_errors() -> None:
    """One bad round moves no median, and its errors are still told."""
    found = summarise(
        [sample(100, node=5.0), sample(90, errors=3, node=7.0), sample(1, node=90.0)]
    )

    assert found.rate == 90
    assert (found.rate_low, found.rate_high) == (1, 100)
    assert found.cpu_us == {"node": 7.0}
    assert found.errors == 3


def test_a_ratio_is_taken_within_a_round() -> None:
    """A round that was slow for both says the same as a fast one."""
    ours = [sample(50), sample(5), sample(40)]
    base = [sample(100), sample(10), sample(100)]

    assert rate_ratio(ours, base) == 0.5


def test_there_is_no_ratio_without_a_base() -> None:
    """Where the other side was left out, nothing is compared."""
    assert rate_ratio([sample(50)], []) is None
    assert value_ratio([1.0], [0.0]) is None
