"""Whoever is measured: something that answers HTTP, or pgbench on the same table.

A contender answers some workloads. It tells which processes are its own, and before anything is
timed it must give the right rows: a fast wrong answer is no result.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol

from tests.benchmarks import rows
from tests.benchmarks.drivers import PgbenchJob, run_own, run_pgbench, run_wrk
from tests.benchmarks.figures import Sample
from tests.benchmarks.generator import Job
from tests.benchmarks.processes import Groups, metered
from tests.benchmarks.traffic import Traffic, lua_script, renderer
from tests.benchmarks.walking import NextPage, walk
from tests.benchmarks.workloads import Workload

CHECK_KEY = 4_321
CHECK_CATEGORY = "321"


class WrongAnswer(Exception):
    """A contender does not give the rows that it was given."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """When, how long and how hard one contender is asked."""

    seconds: float
    seed: int
    fresh_from: int
    rate: float | None = None


class Contender(Protocol):
    """One line of the report."""

    name: str
    notes: list[str]

    def serves(self, workload: Workload) -> bool:
        """Say whether this workload makes sense here."""

    def check(self, workload: Workload, *, fresh_from: int) -> None:
        """Raise WrongAnswer unless one request brings what is stored."""

    def measure(self, workload: Workload, stretch: Stretch) -> Sample:
        """Return what one stretch of load measured."""


@dataclass(slots=True)
class HttpContender:
    """A server that answers over HTTP, with the traffic of each workload by its name."""

    name: str
    traffic: Mapping[str, Traffic]
    groups: Groups
    rows_of: Callable[[Any], list[Mapping[str, Any]]]
    wrk: str | None
    next_page: NextPage | None = None
    notes: list[str] = field(default_factory=list)

    def serves(self, workload: Workload) -> bool:
        """Say whether there is traffic for it."""
        return workload.traffic in self.traffic and (
            workload.loop != "walk" or self.next_page is not None
        )

    def check(self, workload: Workload, *, fresh_from: int) -> None:
        """Ask once and compare with what was loaded."""
        traffic = self.traffic[workload.traffic]
        asked = replace(
            traffic,
            path=_settled(traffic.path),
            body=_settled(traffic.body),
        )
        status, body = ask(asked, fresh_from=fresh_from)
        if status >= 300:
            raise WrongAnswer(f"{self.name}, {workload.name}: {status} {body[:400]!r}")
        found = self.rows_of(json.loads(body))
        problem = _difference(workload.traffic, found)
        if problem:
            raise WrongAnswer(f"{self.name}, {workload.name}: {problem}: {body[:400]!r}")

    def measure(self, workload: Workload, stretch: Stretch) -> Sample:
        """Return what one stretch of load measured, with the CPU of our processes."""
        traffic = self.traffic[workload.traffic]
        with metered(self.groups) as usage:
            if workload.loop == "walk":
                assert self.next_page is not None
                sample = walk(traffic, self.next_page, seconds=stretch.seconds)
            else:
                sample = self._loaded(traffic, workload, stretch)
        return replace(sample, cpu_us=usage.per_request_us(sample.requests))

    def _loaded(self, traffic: Traffic, workload: Workload, stretch: Stretch) -> Sample:
        job = Job(
            traffic,
            workload.connections,
            stretch.seconds,
            stretch.seed,
            stretch.fresh_from,
            stretch.rate,
        )
        if self.wrk is None or workload.loop == "open" or workload.connections == 1:
            return run_own(job)
        script = lua_script(traffic, seed=stretch.seed, fresh_from=stretch.fresh_from)
        return run_wrk(self.wrk, job, script)


def _settled(template: str) -> str:
    """Return a template with known values: the check knows what must come."""
    known = {"<key>": str(CHECK_KEY), "<category>": CHECK_CATEGORY}
    for place, value in known.items():
        template = template.replace(place, value)
    return template


def ask(traffic: Traffic, *, fresh_from: int) -> tuple[int, bytes]:
    """Send one request of this traffic, whatever its places, and return status and body."""
    raw = renderer(traffic, chance=Random(1), fresh_from=fresh_from)()
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, path, _ = first.split(" ")
    headers = dict(line.split(": ", 1) for line in lines)
    connection = http.client.HTTPConnection(traffic.host, traffic.port, timeout=30)
    try:
        connection.request(method, path, body=body or None, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _difference(traffic: str, found: list[Mapping[str, Any]]) -> str:
    """Return what is wrong with the answer to the check's request, "" if nothing is."""
    if traffic == "group":
        return "" if len(found) == rows.CATEGORIES else f"{len(found)} groups"
    if traffic in ("insert", "insert-many"):
        written = 1 if traffic == "insert" else rows.BATCH_ROWS
        is_right = [row["name"] for row in found] == [rows.FRESH_NAME] * written
        return "" if is_right else "not what was written"
    if traffic == "walk":
        return "" if len(found) == rows.PAGE_ROWS else f"{len(found)} rows in a page"
    wanted = [rows.item(CHECK_KEY)] if traffic == "point" else rows.items_of(CHECK_CATEGORY)
    names = [row["name"] for row in found]
    if names != [row.name for row in wanted]:
        return f"{len(names)} rows, of other names or in another order than the {len(wanted)}"
    same = all(
        float(ours["price"]) == float(row.price)
        and int(ours["stock"]) == row.stock
        and ours["note"] == row.note
        and ours["category"] == row.category
        for ours, row in zip(found, wanted, strict=True)
    )
    return "" if same else "other values than were loaded"


PGBENCH_COLUMNS = ", ".join(rows.COLUMNS)
_FRESH_VALUES = (
    f"'{rows.FRESH_CATEGORY}', '{rows.FRESH_NAME}', {rows.FRESH_PRICE}, {rows.FRESH_STOCK},"
    f" '{rows.FRESH_NOTE}'"
)
_BATCH_VALUES = ", ".join(
    f"(:base::bigint + {place}, {_FRESH_VALUES})" for place in range(rows.BATCH_ROWS)
)
PGBENCH_SCRIPTS = {
    "point": f"\\set key random(1, {rows.ROWS})\n"
    f"SELECT {PGBENCH_COLUMNS} FROM item WHERE id = :key;\n",
    "list": f"\\set category random({rows.FIRST_CATEGORY}, {rows.LAST_CATEGORY})\n"
    f"SELECT {PGBENCH_COLUMNS} FROM item WHERE category = :category"
    f" ORDER BY id LIMIT {rows.LIST_ROWS + 1};\n",
    "insert": "\\set fresh :fresh + 1\n\\set id :fresh + :client_id * 10000000\n"
    f"INSERT INTO item ({PGBENCH_COLUMNS}) VALUES (:id, {_FRESH_VALUES});\n",
    "insert-many": "\\set fresh :fresh + 1\n"
    f"\\set base (:fresh + :client_id * 10000000) * {rows.BATCH_ROWS}\n"
    f"INSERT INTO item ({PGBENCH_COLUMNS}) VALUES {_BATCH_VALUES};\n",
    "group": "SELECT category, count(*) FROM item GROUP BY category;\n",
    "walk": f"SELECT {PGBENCH_COLUMNS} FROM item WHERE id > :after ORDER BY id"
    f" LIMIT {rows.PAGE_ROWS + 1};\n\\set after (:after + {rows.PAGE_ROWS}) % {rows.ROWS}\n",
}


@dataclass(slots=True)
class PgbenchContender:
    """The limit: the same statements from C, with nothing between it and Postgres."""

    name: str
    pgbench: str
    dsn: str
    groups: Groups
    scripts: Mapping[str, str] = field(default_factory=lambda: PGBENCH_SCRIPTS)
    notes: list[str] = field(default_factory=list)

    def serves(self, workload: Workload) -> bool:
        """Say whether there is a script for it."""
        return workload.traffic in self.scripts

    def check(self, workload: Workload, *, fresh_from: int) -> None:
        """Do nothing: pgbench stops by itself at a statement that fails."""

    def measure(self, workload: Workload, stretch: Stretch) -> Sample:
        """Return what one stretch of pgbench measured, with the CPU of Postgres."""
        job = PgbenchJob(
            self.dsn,
            self.scripts[workload.traffic],
            workload.connections,
            stretch.seconds,
            fresh_from=stretch.fresh_from,
            seed=stretch.seed,
            rate=stretch.rate,
        )
        with metered(self.groups) as usage:
            sample = run_pgbench(self.pgbench, job)
        return replace(sample, cpu_us=usage.per_request_us(sample.requests))
