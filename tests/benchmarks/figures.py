"""What a round measured, and what many rounds say together.

Ratios are taken within a round and only then summarised: what else the machine did during a round
slows both sides of it, so a ratio of medians would compare two different afternoons.

Pure: no clock, no processes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender's share of one round."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    errors: int = 0
    cpu_us: Mapping[str, float] = field(default_factory=dict)  # per request, by process group
    asked_rate: float | None = None  # of an open loop: how many requests a second were due

    @property
    def rate(self) -> float:
        """Return requests a second."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """The medians of a contender's samples."""

    rounds: int
    rate: float
    p50_us: float
    p99_us: float
    cpu_us: Mapping[str, float]
    errors: int
    rate_low: float
    rate_high: float
    asked_rate: float | None = None

    @property
    def cpu_us_total(self) -> float:
        """Return the CPU of all server processes per request."""
        return sum(self.cpu_us.values())


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of all values do not exceed.

    Raises:
        ValueError: There are no values, or the share is not above 0 and at most 1.
    """
    if not values or not 0 < share <= 1:
        raise ValueError(f"the {share} quantile of {len(values)} values")
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def summarise(samples: Sequence[Sample]) -> Summary:
    """Return the medians over the rounds; errors are added up, never averaged away."""
    names = dict.fromkeys(name for sample in samples for name in sample.cpu_us)
    rates = [sample.rate for sample in samples]
    asked = [sample.asked_rate for sample in samples if sample.asked_rate is not None]
    return Summary(
        rounds=len(samples),
        rate=statistics.median(rates),
        p50_us=statistics.median(sample.p50_us for sample in samples),
        p99_us=statistics.median(sample.p99_us for sample in samples),
        cpu_us={
            name: statistics.median(sample.cpu_us.get(name, 0.0) for sample in samples)
            for name in names
        },
        errors=sum(sample.errors for sample in samples),
        rate_low=min(rates),
        rate_high=max(rates),
        asked_rate=statistics.median(asked) if asked else None,
    )


def rate_ratio(samples: Sequence[Sample], base: Sequence[Sample]) -> float | None:
    """Return the median over the rounds of this rate to the other's; None without a base."""
    pairs = [
        one.rate / other.rate
        for one, other in zip(samples, base, strict=False)
        if other.rate > 0 and one.rate > 0
    ]
    return statistics.median(pairs) if pairs else None


def value_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return the median over the rounds of one measured value to another."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=False) if a > 0 and b > 0]
    return statistics.median(pairs) if pairs else None
