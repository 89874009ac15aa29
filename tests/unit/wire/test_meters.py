"""Counting requests: nothing is lost, doubled or taken back, and Prometheus can read it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldefs.wire.exposition import render
from modeldefs.wire.meter_files import MeterFolder
from modeldefs.wire.meters import (
    BOUNDS_S,
    BYTES_IN,
    ENDPOINT_COLUMNS,
    LEGS_MORE,
    OK,
    OUTCOMES,
    Table,
    buckets_of,
    count,
    count_problem,
    endpoint_table,
    new_row,
    quantile_s,
    totals_of,
)
from modeldefs.wire.metric_names import DISPATCHER, NODE
from modeldefs.wire.stream import STREAM_COLUMNS

CHILD = """
import os, signal, sys
from pathlib import Path
from modeldefs.wire.meter_files import MeterFolder
from modeldefs.wire.meters import OK, Table, count, endpoint_table
table = endpoint_table("requests", ["get_user"])
gauge = Table("process", ("in_flight_now",), {"": [7]})
file = MeterFolder(Path(sys.argv[1])).open([table, gauge])
for n in range(1000):
    count(table.rows["get_user"], OK, 0.002, 10)
file.publish()
os.kill(os.getpid(), signal.SIGKILL)
"""

# The grammar of a line of the text format, and of a label.
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(
    rf"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{{_LABEL}(?:,{_LABEL})*\}})? (?P<value>[0-9.e+-]+)"
)


def test_the_columns_are_where_their_names_say() -> None:
    """Each constant is the place of the column of its name."""
    assert "outcome:ok" == ENDPOINT_COLUMNS[OK]
    assert "bytes_in" == ENDPOINT_COLUMNS[BYTES_IN]
    assert "legs_more" == ENDPOINT_COLUMNS[LEGS_MORE]
    assert len(new_row()) == len(ENDPOINT_COLUMNS) == len(set(ENDPOINT_COLUMNS))


def test_what_a_killed_worker_counted_stays_and_its_gauges_go(tmp_path: Path) -> None:
    """A worker that is killed leaves its counters for good, once, and no gauge."""
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    killed = [subprocess.run(command, check=False).returncode for _ in range(2)]
    folder = MeterFolder(tmp_path)

    source, totals, living = folder.read()
    again = folder.read()

    assert [-signal.SIGKILL] * 2 == killed
    assert 0 == living
    assert 2_000 == totals["requests"]["get_user"]["outcome:ok"]
    assert 20_000 == totals["requests"]["get_user"]["bytes_out"]
    assert {} == totals["process"][""]
    assert (source, totals, 0) == again
    assert [] == list(tmp_path.glob("*.meters"))


def test_the_living_are_added_and_go_on_counting_after_one_ends(tmp_path: Path) -> None:
    """Totals are the sum of two workers; when one ends, what it counted is still in them."""
    folder = MeterFolder(tmp_path)
    tables = [endpoint_table("requests", ["get_user"]) for _ in range(2)]
    files = [folder.open([table]) for table in tables]
    seen = []
    for table, file in zip(tables, files, strict=True):
        count(table.rows["get_user"], OK, 0.01, 5)
        file.publish()
        seen.append(folder.read()[1]["requests"]["get_user"]["outcome:ok"])
    count(tables[0].rows["get_user"], OK, 0.01, 5)
    files[0].close()
    _, totals, living = folder.read()
    seen.append(totals["requests"]["get_user"]["outcome:ok"])
    files[1].close()
    seen.append(folder.read()[1]["requests"]["get_user"]["outcome:ok"])

    assert [1, 2, 3, 3] == seen
    assert 1 == living


def test_a_crash_between_folding_and_removing_counts_nothing_twice(tmp_path: Path) -> None:
    """A dead worker's file that the base names already is removed, not added again."""
    folder = MeterFolder(tmp_path)
    table = endpoint_table("requests", ["get_user"])
    file = folder.open([table])
    count(table.rows["get_user"], OK, 0.01, 5)
    file.close()
    (path,) = tmp_path.glob("*.meters")
    left = path.read_bytes()
    folder.read()
    base = (tmp_path / "base.json").read_text()
    (tmp_path / "base.json").write_text(base.replace('"folded":[]', f'"folded":["{path.name}"]'))
    path.write_bytes(left)

    _, totals, _ = folder.read()

    assert 1 == totals["requests"]["get_user"]["outcome:ok"]
    assert not path.exists()


def test_a_broken_base_is_begun_anew_and_the_living_still_count(tmp_path: Path) -> None:
    """A base that is no JSON costs what it held, and no answer."""
    folder = MeterFolder(tmp_path)
    table = endpoint_table("requests", ["get_user"])
    file = folder.open([table])
    count(table.rows["get_user"], OK, 0.01, 5)
    file.publish()
    (tmp_path / "base.json").write_text("{")

    _, totals, living = folder.read()
    file.close()

    assert (1, 1) == (living, totals["requests"]["get_user"]["outcome:ok"])


@given(st.lists(st.floats(0.00001, 31), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_right_to_its_bucket(times: list[float], share: float) -> None:
    """The percentile of the histogram lies in the bucket of the true one."""
    row = new_row()
    for took in times:
        count(row, OK, took, 0)
    table = Table("requests", ENDPOINT_COLUMNS, {"x": row})
    found = quantile_s(buckets_of(totals_of([table])["requests"]["x"]), share)

    ordered = sorted(times)
    wanted = share * len(ordered)
    true = next(took for n, took in enumerate(ordered, 1) if n >= wanted)
    high = min(bound for bound in BOUNDS_S if bound >= true)
    low = max((bound for bound in BOUNDS_S if bound < high), default=0.0)

    assert low <= found <= high


def test_no_request_has_no_percentile() -> None:
    """Without requests every percentile is 0."""
    assert 0.0 == quantile_s([0] * (len(BOUNDS_S) + 1), 0.99)


@pytest.mark.parametrize("families", [DISPATCHER, NODE])
def test_the_text_is_what_prometheus_reads(families: tuple[object, ...]) -> None:
    """Each family has HELP and TYPE once and before its samples, counters end in _total, buckets
    are cumulative and end with +Inf = _count, and labels are escaped."""
    requests = endpoint_table("requests", ["get_user", "list_users"])
    count(requests.rows["get_user"], OK, 0.002, 100)
    count(requests.rows["get_user"], OK, 200.0, 100)
    count_problem(requests.rows["get_user"], "overloaded", 0.001, 50)
    count_problem(requests.rows["get_user"], "an-author's-own", 0.001, 50)
    calls = endpoint_table("calls", ["get_user"])
    count(calls.rows["get_user"], OK, 0.002, 100)
    streams = Table.of("streams", STREAM_COLUMNS, ['s"1\\\n'])
    text = render(totals_of([requests, calls, streams]), families)  # type: ignore[arg-type]

    kinds: dict[str, str] = {}
    helped = set()
    samples: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split()[2])
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name in helped
            assert name not in kinds
            kinds[name] = kind
        else:
            found = _SAMPLE.fullmatch(line)
            assert found is not None, line
            family = re.sub(r"_(bucket|sum|count)$", "", found["name"])
            assert found["name"] in kinds or kinds[family] == "histogram", line
            samples.append((line.rpartition(" ")[0], found["value"]))

    known = dict(samples)
    assert text.endswith("\n")
    assert len(samples) == len(known)
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in kinds.items())
    assert "2" == known['shardpoint_requests_total{endpoint="get_user",status="2xx",code="ok"}']
    assert (
        "1"
        == known['shardpoint_requests_total{endpoint="get_user",status="503",code="overloaded"}']
    )
    assert (
        "1" == known['shardpoint_requests_total{endpoint="get_user",status="4xx",code="declared"}']
    )
    duration = "shardpoint_request_duration_seconds"
    buckets = [int(value) for name, value in samples if name.startswith(f"{duration}_bucket")]
    assert sorted(buckets) == buckets
    assert len(BOUNDS_S) + 1 == len(buckets)
    assert "4" == known[f'{duration}_bucket{{endpoint="get_user",le="+Inf"}}']
    assert "4" == known[f'{duration}_count{{endpoint="get_user"}}']
    assert 200.004 == float(known[f'{duration}_sum{{endpoint="get_user"}}'])
    assert "list_users" not in text


def test_every_code_has_its_place() -> None:
    """No two outcomes share a column."""
    assert len(OUTCOMES) == len(set(OUTCOMES))
