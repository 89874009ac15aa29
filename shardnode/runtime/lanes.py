"""Lanes: a few connections in libpq's pipeline mode, driven by the event loop.

Statements go out without waiting for those before them; answers come back in order. Every
statement ends with its own Sync, so it is its own transaction: one that fails takes no other with
it. A lane that lost its connection fails what it had in flight at once and connects again by
itself.

Invariant: for every ``send`` the callback is called exactly once, in the loop's thread.
Source: libpq pipeline mode, https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from psycopg import pq
from psycopg.conninfo import make_conninfo

from shardnode.runtime.sqlstates import CONNECTION_LOST

logger = logging.getLogger(__name__)

SESSION_SETTINGS = (b"SET intervalstyle = 'iso_8601'", b"SET timezone = 'UTC'")
STALE_PLAN = "0A000"
NO_SUCH_STATEMENT = "26000"
CANCELLED = "57014"


class LaneError(NamedTuple):
    """Why a statement has no result."""

    sqlstate: str
    message: str


Done = Callable[[Any, LaneError | None], None]


@dataclass(slots=True)
class _Waiting:
    """One statement on its way."""

    name: bytes
    sql: bytes
    params: Sequence[bytes | None]
    done: Done
    deadline: float
    prepared_as: bytes = b""
    is_repeat: bool = False
    cancelled: bool = False
    cancelled_at: float = 0.0
    error: LaneError | None = None


_SYNC = None


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Bounds of a lane, with their units."""

    in_flight_max: int = 256
    reconnect_first_s: float = 0.05
    reconnect_max_s: float = 2.0
    cancel_grace_s: float = 0.05
    watch_s: float = 0.05
    unanswered_s: float = 1.0  # a cancel that has no effect for so long: the backend hangs
    prepared_max: int = 1_000  # statements that a connection keeps prepared
    connect_timeout_s: int = 5


class Lane:
    """One connection. Use from the loop's thread only."""

    def __init__(self, dsn: str, limits: LaneLimits) -> None:
        self._dsn = dsn
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._connection: Any = None
        self._socket = -1
        self._queue: deque[tuple[str, _Waiting] | None] = deque()
        self._prepared: set[bytes] = set()
        self._generation = 0
        self._writing = False
        self._closed = False
        self._connecting: asyncio.Task[None] | None = None
        self.in_flight = 0

    @property
    def is_ready(self) -> bool:
        """Can a statement be sent now?"""
        return self._connection is not None and self.in_flight < self._limits.in_flight_max

    async def open(self) -> None:
        """Connect; raise what libpq says if the first attempt fails."""
        self._attach(await self._loop.run_in_executor(None, self._connect))

    def _connect(self) -> Any:
        conninfo = make_conninfo(self._dsn, connect_timeout=self._limits.connect_timeout_s)
        connection = pq.PGconn.connect(conninfo.encode())
        if connection.status != pq.ConnStatus.OK:
            message = connection.error_message.decode("utf-8", "replace").strip()
            connection.finish()
            raise ConnectionError(message)
        for setting in SESSION_SETTINGS:
            connection.exec_(setting)
        return connection

    def _attach(self, connection: Any) -> None:
        connection.nonblocking = 1
        connection.enter_pipeline_mode()
        self._connection = connection
        self._prepared.clear()
        # libpq forgets the number when the connection breaks, and the loop must be told it then.
        self._socket = connection.socket
        self._loop.add_reader(self._socket, self._on_readable)

    def send(
        self,
        *,
        name: bytes,
        sql: bytes,
        params: Sequence[bytes | None],
        deadline: float,
        done: Done,
    ) -> Callable[[], None]:
        """Run a statement, preparing it on its first use on this lane.

        Returns:
            What to call when nobody waits for it any more: it is cancelled when it runs.
        """
        waiting = _Waiting(name, sql, params, done, deadline)
        self._submit(waiting)
        return partial(setattr, waiting, "deadline", 0.0)

    def _submit(self, waiting: _Waiting) -> None:
        connection = self._connection
        if connection is None:
            self._loop.call_soon(
                waiting.done, None, LaneError(CONNECTION_LOST, "the lane is not connected")
            )
            return
        name = b"%b_%d" % (waiting.name, self._generation)
        waiting.prepared_as = name
        try:
            if name not in self._prepared:
                if len(self._prepared) >= self._limits.prepared_max:
                    # Which parameters are present is the client's choice; memory is not.
                    connection.send_query_params(b"DEALLOCATE ALL", None)
                    self._queue.append(("deallocate", waiting))
                    self._prepared.clear()
                connection.send_prepare(name, waiting.sql)
                self._queue.append(("prepare", waiting))
                self._prepared.add(name)
            connection.send_query_prepared(name, waiting.params)
            self._queue.append(("query", waiting))
            self.in_flight += 1
            connection.pipeline_sync()
            self._queue.append(_SYNC)
            self._flush()
        except Exception as fault:
            logger.warning("lane.lost", extra={"reason": str(fault)})
            # It may not have reached the queue, whose entries are all answered by _lose.
            self._queue.append(("query", waiting))
            self._lose()

    def _flush(self) -> None:
        if self._connection.flush() and not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        try:
            if not self._connection.flush():
                self._loop.remove_writer(self._socket)
                self._writing = False
        except Exception:
            self._lose()

    def _on_readable(self) -> None:
        connection = self._connection
        try:
            connection.consume_input()
            while self._queue and not connection.is_busy():
                result = connection.get_result()
                if result is not None:
                    self._on_result(result)
            if connection is self._connection and connection.status != pq.ConnStatus.OK:
                # libpq may notice between two results that it is over, and then nothing more
                # becomes readable.
                raise ConnectionError("the connection is over")
        except Exception as fault:
            logger.warning("lane.lost", extra={"reason": str(fault)})
            self._lose()

    def look(self) -> None:
        """Read what has arrived, if anything has.

        uvloop drops a reader without a word when its socket is reset, as it is when a backend dies
        with statements unread; without this look those in flight would wait for ever.
        """
        if self._connection is not None:
            self._on_readable()

    def _on_result(self, result: Any) -> None:
        entry = self._queue.popleft()
        if entry is None:
            return
        step, waiting = entry
        worked = result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
        if step == "deallocate":
            return
        if step == "prepare":
            if not worked:
                # The query behind it comes back aborted; this is the reason it will be given.
                waiting.error = _error_of(result)
                self._prepared.discard(waiting.prepared_as)
            return
        self.in_flight -= 1
        if worked:
            self._finish(waiting, result, None)
            return
        error = waiting.error or _error_of(result)
        if not waiting.is_repeat and self._is_innocent(waiting, error):
            waiting.is_repeat, waiting.error = True, None
            self._submit(waiting)
            return
        self._finish(waiting, None, error)

    def _is_innocent(self, waiting: _Waiting, error: LaneError) -> bool:
        """Did the statement fail for a reason that lies with the lane, so that a repeat helps?"""
        if error.sqlstate in (STALE_PLAN, NO_SUCH_STATEMENT):
            self._generation += 1
            return True
        # A cancel is for the connection, not for a statement: it may hit the one behind.
        return error.sqlstate == CANCELLED and not waiting.cancelled

    def _finish(self, waiting: _Waiting, result: Any, error: LaneError | None) -> None:
        try:
            waiting.done(result, error)
        except Exception:  # one broken callback must not stop the lane
            logger.exception("lane.callback-failed")

    def overdue(self, now: float) -> bool:
        """Cancel the running statement if its deadline has passed; return whether it had."""
        head = next((entry for entry in self._queue if entry is not None), None)
        if head is None or self._connection is None:
            return False
        waiting = head[1]
        if waiting.cancelled:
            if now > waiting.cancelled_at + self._limits.unanswered_s:
                logger.warning("lane.hangs")
                self._lose()
            return False
        if now < waiting.deadline + self._limits.cancel_grace_s:
            return False
        waiting.cancelled, waiting.cancelled_at = True, now
        handle = self._connection.get_cancel()
        self._loop.run_in_executor(None, _cancel, handle)
        return True

    def _lose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._loop.remove_reader(self._socket)
            if self._writing:
                self._loop.remove_writer(self._socket)
                self._writing = False
            connection.finish()
        lost, self._queue = self._queue, deque()
        self.in_flight = 0
        # A statement has one entry, or two with its prepare; it is answered once.
        for waiting in {id(entry[1]): entry[1] for entry in lost if entry is not None}.values():
            self._finish(waiting, None, LaneError(CONNECTION_LOST, "the connection was lost"))
        if not self._closed and self._connecting is None:
            self._connecting = self._loop.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        wait_s = self._limits.reconnect_first_s
        while not self._closed:
            try:
                self._attach(await self._loop.run_in_executor(None, self._connect))
            except Exception:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, self._limits.reconnect_max_s)
            else:
                break
        self._connecting = None

    async def close(self) -> None:
        """Close the connection; what is in flight fails."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        self._lose()


def _error_of(result: Any) -> LaneError:
    sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE)
    return LaneError(
        sqlstate.decode() if sqlstate else CONNECTION_LOST,
        result.error_message.decode("utf-8", "replace").strip(),
    )


def _cancel(handle: Any) -> None:
    try:
        handle.cancel()
    except Exception:
        logger.warning("lane.cancel-failed", exc_info=True)


class LanePool:
    """Lanes of one kind; a statement takes the least loaded one."""

    def __init__(self, dsn: str, size: int, limits: LaneLimits | None = None) -> None:
        self._limits = limits or LaneLimits()
        self._lanes = [Lane(dsn, self._limits) for _ in range(size)]
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Connect every lane."""
        await asyncio.gather(*(lane.open() for lane in self._lanes))
        self._schedule()

    def _schedule(self) -> None:
        self._watch = self._loop.call_later(self._limits.watch_s, self._on_watch)

    def _on_watch(self) -> None:
        now = self._loop.time()
        for lane in self._lanes:
            lane.look()
            lane.overdue(now)
        self._schedule()

    def pick(self) -> Lane | None:
        """Return the least loaded lane that can take a statement; None when all are full."""
        ready = [lane for lane in self._lanes if lane.is_ready]
        return min(ready, key=lambda lane: lane.in_flight) if ready else None

    @property
    def is_connected(self) -> bool:
        """Is any lane connected?"""
        return any(lane._connection is not None for lane in self._lanes)

    async def close(self) -> None:
        """Close every lane."""
        if self._watch is not None:
            self._watch.cancel()
        for lane in self._lanes:
            await lane.close()
