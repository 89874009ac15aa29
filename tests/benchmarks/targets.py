"""What issue and plan ask of the hot path, and what a run found. Says; never asserts.

Pure: samples in, lines out.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.figures import Sample, rate_ratio, value_ratio
from tests.benchmarks.rounds import Measured


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the targets."""

    what: str
    target: str
    measured: str


# (workload, contender, other, target of the rates' ratio)
RATES = (
    ("point", "dispatcher", "pgbench", "≥ 0.50"),
    ("point", "dispatcher", "PocketBase", "≥ 2.5"),
    ("point", "dispatcher", "Django + DRF", "≥ 10"),
    ("point", "dispatcher", "django-ninja", "≥ 10"),
    ("point", "node", "pgbench", "≥ 0.65"),
    ("list", "dispatcher", "pgbench", "≥ 0.40"),
    ("list", "dispatcher", "PocketBase", "≥ 4"),
    ("list", "dispatcher", "Django + DRF", "≥ 10"),
    ("insert", "dispatcher", "pgbench", "≥ 0.45"),
    ("insert", "dispatcher", "PocketBase", "≥ 2"),
    ("load", "manage.py load, 4 shards", "psql \\copy, one table", "≥ 0.8"),
)
MEMORY_MB_MAX = 90
CHECKS_US_MAX = 15


def reached(
    measured: Sequence[Measured],
    memory: Mapping[str, Sequence[tuple[float, float]]],
    checks: Mapping[str, float],
) -> list[Target]:
    """Return a line for every target that the run can speak about."""
    samples = {each.workload.name: each.samples for each in measured}
    lines = []
    for workload, ours, other, target in RATES:
        known = samples.get(workload, {})
        ratio = rate_ratio(known.get(ours, []), known.get(other, []))
        if ratio is not None:
            lines.append(Target(f"{workload}: {ours} × {other}, rate", target, f"{ratio:.2f}"))
    lines += _latencies(samples)
    lines += _scatter(samples)
    together = {name: cost for name, cost in checks.items() if name.startswith("together")}
    lines += [
        Target(f"checks {name}", f"≤ {CHECKS_US_MAX} µs", f"{cost:.1f} µs")
        for name, cost in together.items()
    ]
    for name, sizes in memory.items():
        largest = max((resident for resident, _ in sizes), default=0.0)
        lines.append(Target(f"memory: {name}", f"≤ {MEMORY_MB_MAX} MB", f"{largest:.0f} MB"))
    return lines


def _latencies(samples: Mapping[str, Mapping[str, Sequence[Sample]]]) -> list[Target]:
    lines = []
    alone = samples.get("point-1", {})
    ratio = value_ratio(
        [sample.p50_us for sample in alone.get("dispatcher", [])],
        [sample.p50_us for sample in alone.get("PocketBase", [])],
    )
    if ratio is not None:
        what = "point-1: dispatcher × PocketBase, p50 at one connection"
        lines.append(Target(what, "≤ 1.5", f"{ratio:.2f}"))
    half = samples.get("half", {}).get("dispatcher", [])
    if half:
        spread = statistics.median(sample.p99_us / sample.p50_us for sample in half)
        lines.append(Target("half: dispatcher, p99 × its p50", "≤ 5", f"{spread:.1f}"))
    return lines


def _scatter(samples: Mapping[str, Mapping[str, Sequence[Sample]]]) -> list[Target]:
    lines = []
    many, alone = samples.get("scatter", {}), samples.get("scatter-1", {})
    cpu = value_ratio(
        [sum(sample.cpu_us.values()) for sample in many.get("8 shards", [])],
        [sum(sample.cpu_us.values()) for sample in many.get("1 shard", [])],
    )
    if cpu is not None:
        lines.append(Target("scatter: 8 shards × 1 shard, CPU", "≤ 5", f"{cpu:.1f}"))
    p50 = value_ratio(
        [sample.p50_us for sample in alone.get("8 shards", [])],
        [sample.p50_us for sample in alone.get("1 shard", [])],
    )
    if p50 is not None:
        lines.append(Target("scatter-1: 8 shards × 1 shard, p50", "≤ 4", f"{p50:.1f}"))
    return lines
