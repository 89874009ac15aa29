"""Minutes in the registry: every counted request is in exactly one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_site.health import rollups
from dispatcher_site.health.models import EndpointMinute, MeterSource
from dispatcher_site.health.rollups import Read, difference, roll_up, roll_up_all
from modeldefs.wire.meter_files import MeterFolder
from modeldefs.wire.meters import OK, PARTIALS, ROWS, count, count_problem, endpoint_table
from tests.dispatcher.making import make_shard

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 1, 12, 0, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Counted:
    """A folder of counts, as a front's workers keep it."""

    def __init__(self, path: Path) -> None:
        self.folder = MeterFolder(path)
        self.table = endpoint_table("requests", ["get_user"])
        self.row = self.table.rows["get_user"]
        self.file = self.folder.open([self.table])

    def read(self) -> Read:
        """Return its totals."""
        self.file.publish()
        source, totals, _ = self.folder.read()
        return Read("front", source, {n: row for n, row in totals["requests"].items() if row})


@pytest.fixture
def counted(tmp_path: Path, settings: Any) -> Counted:
    """Return the folder that the settings name."""
    settings.SHARDPOINT_METERS_DIR = tmp_path / "metrics"
    return Counted(settings.SHARDPOINT_METERS_DIR)


def test_a_minute_is_written_once_with_what_was_counted_in_it(counted: Counted) -> None:
    """Count, errors, fan-out, partials, rows, bytes and percentiles are of that minute alone."""
    for _ in range(99):
        count(counted.row, OK, 0.002, 10)
    count_problem(counted.row, "overloaded", 0.9, 5)
    count_problem(counted.row, "not-found", 0.002, 5)
    counted.row[PARTIALS] += 3
    counted.row[ROWS] += 7
    first = [roll_up(counted.read(), now=NOON), roll_up(counted.read(), now=NOON)]
    count(counted.row, OK, 0.002, 10)
    again = roll_up(counted.read(), now=NOON + timedelta(seconds=50))
    later = roll_up(counted.read(), now=NOON + MINUTE)
    idle = roll_up(counted.read(), now=NOON + 2 * MINUTE)
    second, minute = EndpointMinute.objects.all()

    assert ([1, 0], 0, 1, 0) == (first, again, later, idle)
    assert NOON.replace(second=0) - MINUTE == minute.minute
    assert (101, 1, 99, 3, 7) == (
        minute.requests, minute.errors, minute.shards_asked, minute.partials, minute.rows,
    )  # fmt: skip
    assert 99 * 10 + 10 == minute.bytes_out
    assert 1.4 < minute.p50_ms < 2.2
    assert 1.4 < minute.p99_ms < 2.2
    assert (1, 0, 10) == (second.requests, second.errors, second.bytes_out)


def test_a_minute_that_could_not_be_written_is_in_the_next(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the registry fails half way nothing is stored, and nothing is lost."""
    count(counted.row, OK, 0.002, 10)

    def broken(*_: object) -> None:
        raise RuntimeError("the registry is away")

    with monkeypatch.context() as patch:
        patch.setattr(rollups, "_add", broken)
        with pytest.raises(RuntimeError):
            roll_up(counted.read(), now=NOON)
    nothing = (EndpointMinute.objects.count(), MeterSource.objects.count())
    count(counted.row, OK, 0.002, 10)
    roll_up(counted.read(), now=NOON + MINUTE)

    assert (0, 0) == nothing
    assert [2] == list(EndpointMinute.objects.values_list("requests", flat=True))


def test_two_machines_share_a_minute(counted: Counted, tmp_path: Path) -> None:
    """Fronts on two machines add to the same row, and percentiles are of both."""
    other = Counted(tmp_path / "other")
    for _ in range(10):
        count(counted.row, OK, 0.002, 10)
        count(other.row, OK, 0.5, 10)
    for each in (counted, other):
        assert 1 == roll_up(each.read(), now=NOON)
    (minute,) = EndpointMinute.objects.all()

    assert 20 == minute.requests
    assert minute.p50_ms < 3
    assert 464 <= minute.p95_ms <= 681


def test_a_node_that_is_away_costs_only_its_own_minute(counted: Counted) -> None:
    """The front's minute is written though a shard's node cannot be asked; old minutes go."""
    make_shard("s1")
    old = NOON - rollups.KEPT - MINUTE
    EndpointMinute.objects.create(site="front", endpoint="get_user", minute=old)
    count(counted.row, OK, 0.002, 10)
    counted.file.publish()

    written = roll_up_all(now=NOON)

    assert 1 == written
    assert ["front"] == list(EndpointMinute.objects.values_list("site", flat=True))
    assert not MeterSource.objects.filter(source="shard s1").exists()


def test_a_node_folder_that_was_made_anew_begins_at_nothing() -> None:
    """Counts of another folder are not taken from those of a new one, though they are more."""
    column = "outcome:ok"
    for n, (folder, number) in enumerate((("a", 5), ("b", 9), ("b", 10))):
        read = Read("s1", "shard s1", {"get_user": {column: number}}, folder)
        roll_up(read, now=NOON + n * MINUTE)

    found = EndpointMinute.objects.order_by("minute").values_list("requests", flat=True)
    assert [5, 9, 1] == list(found)


def test_a_shard_that_was_away_for_long_is_compared_with_what_it_told_last(
    counted: Counted,
) -> None:
    """Last totals of known shards are kept however old; those of nobody go."""
    make_shard("s1")
    old = NOON - rollups.KEPT - MINUTE
    for source in ("shard s1", "shard gone"):
        MeterSource.objects.create(source=source, at=old)
    roll_up_all(now=NOON)

    found = MeterSource.objects.filter(source__startswith="shard ")
    assert ["shard s1"] == [each.source for each in found]


def test_odd_numbers_of_one_node_stop_no_other(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose numbers cannot be written costs its own minute alone; old minutes still go."""
    column = "outcome:ok"
    odd: Any = {"get_user": {column: "many"}}
    reads = [
        Read("s1", "shard s1", odd),
        Read("s2", "shard s2", {"get_user": {column: 3}}),
    ]
    monkeypatch.setattr(rollups, "_of_nodes", lambda now: reads)
    old = NOON - rollups.KEPT - MINUTE
    EndpointMinute.objects.create(site="front", endpoint="get_user", minute=old)
    roll_up_all(now=NOON)

    assert ["s2"] == list(EndpointMinute.objects.values_list("site", flat=True))
    assert not MeterSource.objects.filter(source="shard s1").exists()


_NUMBERS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 50), max_size=3)
_ROWS = st.dictionaries(st.sampled_from(["x", "y"]), _NUMBERS, max_size=2)


@given(before=_ROWS, grown=_ROWS)
def test_what_was_added_is_the_difference(
    before: dict[str, dict[str, int]], grown: dict[str, dict[str, int]]
) -> None:
    """Adding rows and taking the difference gives the rows again, without their zeros."""
    now = {name: dict(row) for name, row in before.items()}
    for name, row in grown.items():
        for column, number in row.items():
            now.setdefault(name, {})[column] = now.get(name, {}).get(column, 0) + number
    kept = {name: {c: n for c, n in row.items() if n} for name, row in grown.items()}

    assert {name: row for name, row in kept.items() if row} == difference(now, before)


def test_a_folder_that_was_lost_begins_anew() -> None:
    """Totals smaller than before are what was counted since, never a negative number."""
    assert {"x": {"a": 3, "b": 1}} == difference({"x": {"a": 3, "b": 5}}, {"x": {"a": 9, "b": 4}})
