"""The report: tables as Markdown, the same as JSON, and a chart.

Pure but for ``write_all``: everything it says comes in.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.chart import Bar, bars_svg
from tests.benchmarks.figures import Summary, rate_ratio, summarise, value_ratio
from tests.benchmarks.rounds import Measured
from tests.benchmarks.targets import reached


@dataclass(slots=True)
class Report:
    """Everything that one run measured."""

    rounds: int
    seconds: float
    cores: int
    postgres: str = ""
    measured: list[Measured] = field(default_factory=list)
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    checks: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, measured: Measured) -> None:
        """Take a workload's samples."""
        self.measured.append(measured)

    def note(self, line: str) -> None:
        """Say something about how it was measured."""
        self.notes.append(line)


def _cpu(summary: Summary) -> str:
    parts = [f"{name} {value:,.0f}" for name, value in summary.cpu_us.items() if value >= 0.5]
    return f"{summary.cpu_us_total:,.0f} ({', '.join(parts)})" if parts else "0"


def _row(name: str, measured: Measured) -> str:
    samples, base = measured.samples[name], measured.samples.get(measured.base, [])
    summary = summarise(samples)
    rate = rate_ratio(samples, base)
    cpu = value_ratio(
        [sum(sample.cpu_us.values()) for sample in samples],
        [sum(sample.cpu_us.values()) for sample in base],
    )
    asked = "" if summary.asked_rate is None else f" of {summary.asked_rate:,.0f}"
    cells = [
        name,
        f"{summary.rate:,.0f}{asked}",
        "" if rate is None else f"{rate:.2f}",
        f"{summary.p50_us:,.0f}" if summary.p50_us else "",
        f"{summary.p99_us:,.0f}" if summary.p99_us else "",
        _cpu(summary),
        "" if cpu is None else f"{cpu:.1f}",
        str(summary.errors or ""),
    ]
    return f"| {' | '.join(cells)} |"


def workload_table(measured: Measured) -> str:
    """Return the table of one workload."""
    unit = {"walk": "pages", "load": "rows", "export": "rows"}.get(
        measured.workload.traffic, "requests"
    )
    head = (
        f"| `{measured.workload.name}` | {unit}/s | × {measured.base} | p50 µs | p99 µs "
        f"| CPU µs of each of the {unit} | × {measured.base} | errors |"
    )
    lines = [
        f"### {measured.workload.title}",
        "",
        head,
        "|---|--:|--:|--:|--:|---|--:|--:|",
        *(_row(name, measured) for name in measured.samples),
    ]
    lines += [f"\n{name} was left out: {why}" for name, why in measured.left_out.items()]
    return "\n".join(lines) + "\n"


def checks_table(checks: dict[str, float]) -> str:
    """Return the table of what the checks cost."""
    lines = ["### What the checks of a point read cost", "", "| `checks` | CPU µs |", "|---|--:|"]
    lines += [f"| {name} | {cost:.1f} |" for name, cost in checks.items()]
    return "\n".join(lines) + "\n"


def targets_table(report: Report) -> str:
    """Return what issue and plan ask for, beside what was measured."""
    found = reached(report.measured, report.memory, report.checks)
    if not found:
        return ""
    lines = ["### Targets", "", "| | target | measured |", "|---|--:|--:|"]
    lines += [f"| {each.what} | {each.target} | {each.measured} |" for each in found]
    return "\n".join(lines) + "\n"


def as_markdown(report: Report) -> str:
    """Return the whole report."""
    opening = (
        f"{report.rounds} rounds of {report.seconds:g} s on {report.cores} cores that run"
        f" everything, Postgres {report.postgres or 'not used'}. Values are medians of the rounds;"
        " a ratio is the median of the rounds' ratios."
    )
    parts = [opening + "\n\n", *(f"* {line}\n" for line in report.notes), "\n"]
    sections = [targets_table(report), *(workload_table(each) for each in report.measured)]
    if report.checks:
        sections.append(checks_table(report.checks))
    parts += [f"{section}\n" for section in sections if section]
    if report.memory:
        parts.append(
            "### Memory\n\n| | resident MB | proportional MB (shared pages by share) |\n"
            "|---|--:|--:|\n"
        )
    for name, sizes in report.memory.items():
        parts += [f"| {name} | {rss:.0f} | {pss:.0f} |\n" for rss, pss in sizes]
    return "".join(parts)


def as_document(report: Report) -> dict[str, Any]:
    """Return the report for machines."""
    return {
        "rounds": report.rounds,
        "seconds": report.seconds,
        "cores": report.cores,
        "postgres": report.postgres,
        "notes": report.notes,
        "memory_mb": report.memory,
        "checks_us": report.checks,
        "targets": [
            asdict(each) for each in reached(report.measured, report.memory, report.checks)
        ],
        "workloads": {
            measured.workload.name: {
                "title": measured.workload.title,
                "base": measured.base,
                "left_out": measured.left_out,
                "contenders": {
                    name: {
                        "ratio": rate_ratio(samples, measured.samples.get(measured.base, [])),
                        "summary": asdict(summarise(samples)),
                        "samples": [asdict(sample) for sample in samples],
                    }
                    for name, samples in measured.samples.items()
                },
            }
            for measured in report.measured
        },
    }


def as_chart(report: Report) -> str:
    """Return the rates of every workload as bars, each relative to its base."""
    groups: dict[str, list[Bar]] = {}
    for measured in report.measured:
        base = measured.samples.get(measured.base, [])
        bars = [
            Bar(name, ratio, f"{summarise(samples).rate:,.0f}/s")
            for name, samples in measured.samples.items()
            if (ratio := rate_ratio(samples, base)) is not None
        ]
        if bars:
            groups[f"{measured.workload.title} (× {measured.base})"] = bars
    return bars_svg(groups)


def write_all(report: Report, folder: Path) -> str:
    """Write every form of the report and return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = as_markdown(report)
    (folder / "bench.md").write_text(text, encoding="utf-8")
    document = json.dumps(as_document(report), indent=1)
    (folder / "bench.json").write_text(document + "\n", encoding="utf-8")
    (folder / "bench.svg").write_text(as_chart(report), encoding="utf-8")
    return text
