"""What one worker knows of its own requests: counts, how many are under way, which are logged.

One ``Watch`` per process. Its rows are counted into by the front for every request; a few times a
second it copies them to the worker's file, moves the limit of requests under way, and lets whoever
registered fill in gauges. What it writes to the log are ids, codes, names and times: never a key,
a parameter or a row.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modeldefs.kit.asks import Ask, GroupsOutcome, Outcome, PageOutcome, Served
from modeldefs.kit.request_headers import TIMEOUT_DEFAULT_MS
from modeldefs.kit.tuning import Tuning
from modeldefs.wire.admission import Admission, Sample
from modeldefs.wire.http1 import HttpReply, HttpRequest, ProblemReply
from modeldefs.wire.meter_files import MeterFile, MeterFolder
from modeldefs.wire.meters import (
    LEGS_MORE,
    MICROS,
    MICROS_FAILED,
    OK,
    PARTIALS,
    UNKNOWN,
    Row,
    Table,
    count,
    count_problem,
    endpoint_table,
)
from modeldefs.wire.problems import DeadlineExceeded

logger = logging.getLogger(__name__)
request_logger = logging.getLogger("shardpoint.requests")

_METHODS = frozenset((b"GET", b"HEAD", b"QUERY", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
TICK_S = 0.1
PUBLISH_TICKS = 5
LINES_MAX = 10  # of failures and slow requests between two copies: twenty in a second

REQUESTS = "requests"
PROCESS = "process"
PROCESS_COLUMNS = ("in_flight_now", "limit_now", "log_lines_dropped")
_IN_FLIGHT, _LIMIT, _DROPPED = range(3)


@dataclass(frozen=True, slots=True)
class Ended:
    """One request that has ended, as the log shows it."""

    event: str
    endpoint: str
    status: int
    code: str
    took_s: float
    request_id: str
    kid: str = ""
    trace_id: str = ""
    method: str = ""
    shards: Sequence[tuple[str, str]] = ()

    def line(self) -> str:
        """Return the JSON of its line."""
        document: dict[str, Any] = {
            "event": self.event,
            "endpoint": self.endpoint,
            "method": self.method,
            "status": self.status,
            "code": self.code,
            "took_ms": round(self.took_s * 1_000, 2),
            "request_id": self.request_id,
            "trace_id": self.trace_id,
            "kid": self.kid,
            "shards": [{"id": name, "code": code} for name, code in self.shards],
        }
        kept = {name: value for name, value in document.items() if value not in ("", [])}
        return json.dumps(kept, separators=(",", ":"))


def ended_of(
    event: str, ask: Ask, request: HttpRequest, status: int, code: str, took_s: float
) -> Ended:
    """Return the line of a request that was checked."""
    return Ended(
        event,
        ask.served.name,
        status,
        code,
        took_s,
        ask.request_id,
        kid=ask.principal.kid,
        trace_id=ask.trace.parent.trace_id if ask.trace and ask.trace.parent else "",
        method=_method_of(request),
    )


def _method_of(request: HttpRequest) -> str:
    # Any token may be sent as a method; only those that mean something are ever written down.
    return request.method.decode() if request.method in _METHODS else "other"


class Watch:
    """The counts and the limit of one worker process. Use from the loop's thread only."""

    def __init__(
        self,
        endpoints: Iterable[str] = (),
        *,
        folder: MeterFolder | None = None,
        tuning: Tuning | None = None,
        tables: Sequence[Table] = (),
    ) -> None:
        self.tuning = tuning or Tuning()
        self.admission = Admission(self.tuning.admission)
        self._slow_s = self.tuning.slow_ms / 1_000
        # From which time on a request that went well is looked at once more; all, to log all.
        self.slow_s = 0.0 if self.tuning.access_log else self._slow_s
        self._requests = endpoint_table(REQUESTS, endpoints)
        self._process = Table.of(PROCESS, PROCESS_COLUMNS, [""])
        self._tables = (self._requests, self._process, *tables)
        self._folder = folder
        self._file: MeterFile | None = None
        self._side: dict[str, MeterFile] = {}
        self._relabelled: dict[str, Table] = {}
        self._gauges: list[Callable[[], None]] = []
        self._seen: dict[str, tuple[int, int]] = {}
        self._stuck = 0  # since the last look
        self._ticks = 0
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._lines_left = LINES_MAX

    def row(self, endpoint: str = UNKNOWN) -> Row:
        """Return the row to count an endpoint's requests in."""
        return self._requests.rows[endpoint]

    def every_tick(self, fill: Callable[[], None]) -> None:
        """Have a function called before each copy: to fill in gauges, to follow the limit."""
        self._gauges.append(fill)

    def relabel(self, table: Table, labels: Iterable[str]) -> None:
        """Let a table of its own file have these rows from now on; each begins at nothing again.

        What was counted so far stays with the file that it was counted in.
        """
        before = self._side.pop(table.name, None)
        if before is not None:
            before.close()
        width = len(table.columns)
        rows = {label: table.rows.get(label) or [0] * width for label in labels}
        for row in rows.values():
            row[:] = [0] * width
        table.rows = rows
        if self._file is not None:
            self._open_side(table)
        self._relabelled[table.name] = table

    def _open_side(self, table: Table) -> None:
        if self._folder is not None and table.rows:
            try:
                self._side[table.name] = self._folder.open([table])
            except OSError:
                logger.exception("meters.not-kept")

    def start(self) -> None:
        """Open the worker's file and begin to look, in the running loop."""
        if self._folder is not None:
            try:
                self._file = self._folder.open(self._tables)
            except OSError:
                logger.exception("meters.not-kept")
        if self._file is not None:
            for table in self._relabelled.values():
                self._open_side(table)
        self._last = asyncio.get_running_loop().time()
        self._schedule()

    def stop(self) -> None:
        """Leave the last numbers behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for file in self._files():
            file.close()
        self._file = None
        self._side.clear()

    def note(self, ask: Ask, outcome: Outcome, request: HttpRequest, took_s: float) -> None:
        """Count and log what is particular about a request that went well."""
        if isinstance(outcome, PageOutcome | GroupsOutcome):
            shards, row = outcome.shards, ask.served.row
            row[LEGS_MORE] += max(0, shards.asked - 1)
            row[PARTIALS] += shards.coverage < 1
        if took_s >= self.slow_s:
            event = "request.slow" if took_s >= self._slow_s else "request"
            self._log(ended_of(event, ask, request, 200, "ok", took_s))

    def count_other(
        self,
        row: Row,
        served: Served | None,
        request: HttpRequest,
        reply: HttpReply,
        took_s: float,
        ask: Ask | None = None,
    ) -> None:
        """Count a request that was refused or failed, and log it if that is our fault.

        A stream of rows is none of these: it is counted when its first rows are there.
        """
        code = "ok"
        if isinstance(reply, ProblemReply):
            code = reply.code
            count_problem(row, code, took_s, len(reply.body))
            if code == DeadlineExceeded.code and ask and ask.timeout_ms >= TIMEOUT_DEFAULT_MS:
                self._stuck += 1  # a deadline that is too short for anything is no evidence
        else:
            count(row, OK, took_s, 0)
        is_failed = reply.status >= 500
        if not (is_failed or took_s >= self.slow_s):
            return
        event = "request.failed" if is_failed else "request"
        if ask is not None:
            ended = ended_of(event, ask, request, reply.status, code, took_s)
        else:
            ids = [
                value.decode("latin-1") for name, value in reply.headers if name == b"x-request-id"
            ]
            ended = Ended(
                event,
                served.name if served is not None else UNKNOWN,
                reply.status,
                code,
                took_s,
                "".join(ids),
                method=_method_of(request),
            )
        shards = reply.shards if isinstance(reply, ProblemReply) else ()
        self._log(replace(ended, shards=shards))

    def note_call(self, ended: Ended) -> None:
        """Log a call of the dispatcher that failed, or was slow."""
        if ended.status >= 500 or ended.took_s >= self._slow_s:
            self._log(ended)

    def _log(self, ended: Ended) -> None:
        if ended.event != "request":
            if self._lines_left <= 0:
                self._process.rows[""][_DROPPED] += 1
                return
            self._lines_left -= 1
        request_logger.info(ended.line())

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(TICK_S, self._on_tick)

    def _on_tick(self) -> None:
        now = asyncio.get_running_loop().time()
        self._schedule()
        self._ticks += 1
        try:
            self.look(now)
            if self._ticks % PUBLISH_TICKS == 0:
                self.publish()
        except Exception:
            logger.exception("meters.tick-failed")

    def look(self, now: float) -> None:
        """Move the limit by what ended since the last look."""
        elapsed, self._last = now - self._last, now
        stuck, self._stuck = self._stuck, 0
        self.admission.on_window(list(self._samples()), stuck=stuck, elapsed_s=elapsed, now=now)

    def _samples(self) -> Iterable[Sample]:
        seen = self._seen
        for endpoint, row in self._requests.rows.items():
            number, micros = row[OK], row[MICROS] - row[MICROS_FAILED]
            before = seen.get(endpoint, (0, 0))
            if number != before[0]:
                seen[endpoint] = (number, micros)
                yield Sample(endpoint, number - before[0], (micros - before[1]) / 1e6)

    def publish(self) -> None:
        """Copy every row to the worker's file."""
        self._lines_left = LINES_MAX
        for fill in self._gauges:
            fill()
        row = self._process.rows[""]
        row[_IN_FLIGHT] = self.admission.in_flight
        row[_LIMIT] = self.admission.limit
        for file in self._files():
            file.publish()

    def _files(self) -> list[MeterFile]:
        return [] if self._file is None else [self._file, *self._side.values()]
