"""The report says what was measured, and what was left out."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

from tests.benchmarks.chart import Bar, bars_svg
from tests.benchmarks.figures import Sample
from tests.benchmarks.report import Report, as_chart, as_document, as_markdown
from tests.benchmarks.rounds import Measured
from tests.benchmarks.targets import reached
from tests.benchmarks.workloads import POINT


def report() -> Report:
    """Return a report of one workload, two rounds, and a contender that broke."""
    ours = [Sample(500, 1.0, 100, 900, cpu_us={"front": 40.0, "node": 30.0})] * 2
    base = [Sample(1000, 1.0, 50, 400, errors=1, cpu_us={"postgres": 35.0})] * 2
    measured = Measured(POINT, samples={"pgbench": base, "dispatcher": ours})
    measured.left_out["PocketBase"] = "its server does not start"
    return Report(
        2,
        1.0,
        2,
        "18",
        [measured],
        {"front worker": [(80.0, 60.0)]},
        {"together": 9.0},
        ["By wrk."],
    )


def test_the_table_has_rate_ratio_latency_cpu_and_errors() -> None:
    """One line per contender, and a reason for who has none."""
    text = as_markdown(report())

    assert "| dispatcher | 500 | 0.50 | 100 | 900 | 70 (front 40, node 30) | 2.0 |  |" in text
    assert "| pgbench | 1,000 | 1.00 | 50 | 400 | 35 (postgres 35) | 1.0 | 2 |" in text
    assert "PocketBase was left out: its server does not start" in text
    assert "| front worker | 80 | 60 |" in text


def test_targets_are_told_beside_what_was_measured() -> None:
    """Only of what the run can speak about."""
    made = report()
    found = reached(made.measured, made.memory, made.checks)

    told = {line.what: line.measured for line in found}
    assert told == {
        "point: dispatcher × pgbench, rate": "0.50",
        "checks together": "9.0 µs",
        "memory: front worker": "80 MB",
    }


def test_the_document_is_json_with_every_sample() -> None:
    """Whoever wants another statistic can have it."""
    document = json.loads(json.dumps(as_document(report())))

    point = document["workloads"]["point"]
    assert point["contenders"]["dispatcher"]["ratio"] == 0.5
    assert len(point["contenders"]["dispatcher"]["samples"]) == 2
    assert point["left_out"] == {"PocketBase": "its server does not start"}


def test_the_chart_is_svg_with_a_bar_for_each() -> None:
    """Well-formed, and names are escaped."""
    drawn = ET.fromstring(as_chart(report()))
    rects = [each for each in drawn.iter() if each.tag.endswith("rect")]
    assert len(rects) == 3  # the page and two bars

    odd = ET.fromstring(bars_svg({"a < b": [Bar("x & y", 0.0, "0/s")]}))
    assert [text for each in odd.iter() if (text := each.text) and "&" in text] == ["x & y"]
