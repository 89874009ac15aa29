"""The report: one table as Markdown, the same as JSON, and a chart.

Pure but for ``write_all``: everything it says comes in.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import Summary, rate_ratio, summarise
from tests.benchmarks.rounds import Measured

BASE = "pgbench"


@dataclass(slots=True)
class Report:
    """Everything that one run measured."""

    rounds: int
    seconds: float
    postgres: str = ""
    measured: list[Measured] = field(default_factory=list)
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
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


def workload_table(measured: Measured) -> str:
    """Return the table of one workload."""
    lines = [
        f"### {measured.workload.title}",
        "",
        f"| | requests/s | × {BASE} | p50 µs | p99 µs | CPU µs per request | errors |",
        "|---|--:|--:|--:|--:|---|--:|",
    ]
    base = measured.samples.get(BASE, [])
    for name, samples in measured.samples.items():
        summary = summarise(samples)
        ratio = rate_ratio(samples, base)
        lines.append(
            f"| {name} | {summary.rate:,.0f} | {'' if ratio is None else f'{ratio:.2f}'} "
            f"| {summary.p50_us:,.0f} | {summary.p99_us:,.0f} | {_cpu(summary)} "
            f"| {summary.errors or ''} |"
        )
    lines += [f"| {name} | left out: {why} | | | | | |" for name, why in measured.left_out.items()]
    return "\n".join(lines) + "\n"


def as_markdown(report: Report) -> str:
    """Return the whole report."""
    opening = f"{report.rounds} rounds of {report.seconds:g} s, Postgres {report.postgres}."
    parts = [
        f"{opening} Medians; ratios within a round.\n\n",
        *(f"* {line}\n" for line in report.notes),
        "\n",
        *(workload_table(measured) + "\n" for measured in report.measured),
    ]
    for name, sizes in report.memory.items():
        shown = ", ".join(f"{rss:.0f} MB (its share {pss:.0f})" for rss, pss in sizes)
        parts.append(f"* {name}: {shown}\n")
    return "".join(parts)


def as_document(report: Report) -> dict[str, Any]:
    """Return the report for machines."""
    return {
        "rounds": report.rounds,
        "seconds": report.seconds,
        "postgres": report.postgres,
        "notes": report.notes,
        "memory_mb": report.memory,
        "workloads": {
            measured.workload.name: {
                "title": measured.workload.title,
                "left_out": measured.left_out,
                "contenders": {
                    name: {
                        "ratio": rate_ratio(samples, measured.samples.get(BASE, [])),
                        "summary": asdict(summarise(samples)),
                        "samples": [asdict(sample) for sample in samples],
                    }
                    for name, samples in measured.samples.items()
                },
            }
            for measured in report.measured
        },
    }


def write_all(report: Report, folder: Path) -> str:
    """Write every form of the report and return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = as_markdown(report)
    (folder / "bench.md").write_text(text, encoding="utf-8")
    document = json.dumps(as_document(report), indent=1)
    (folder / "bench.json").write_text(document, encoding="utf-8")
    return text
