"""Lanes: a few connections in libpq's pipeline mode, driven by the event loop.

Statements go out without waiting for those before them; answers come back in order. Those of one
loop tick leave together with one Sync behind them: one write to the socket, one transaction. When
one of them fails, Postgres skips the others up to that Sync; the lane runs them again, together
first and alone if that fails too, so that no statement ever pays for another one's error.

A lane that commits answers its statements only after the Sync, which is their commit: what it says
is done is durable. Any other answers each as its rows come in.

Invariant: for every ``send`` the callback is called exactly once, in the loop's thread.
Source: libpq pipeline mode, https://www.postgresql.org/docs/current/libpq-pipeline-mode.html;
group commit as in Postgres' own commit_delay, with the event loop's tick as the delay.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from psycopg import pq
from psycopg.conninfo import make_conninfo

from shardnode.runtime.lane_statements import (
    LANE_COLUMNS,
    RECONNECTS,
    STATEMENTS,
    SYNCS,
    Done,
    LaneBatch,
    LaneError,
    LaneLimits,
    LaneStatement,
    error_of,
)
from shardnode.runtime.sqlstates import CONNECTION_LOST

__all__ = ["Lane", "LaneError", "LaneLimits"]

logger = logging.getLogger(__name__)

SESSION_SETTINGS = (b"SET intervalstyle = 'iso_8601'", b"SET timezone = 'UTC'")
STALE_PLAN = "0A000"
NO_SUCH_STATEMENT = "26000"
CANCELLED = "57014"

_TUPLES_OK, _COMMAND_OK = pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK
_PIPELINE_SYNC = pq.ExecStatus.PIPELINE_SYNC
_PIPELINE_ABORTED = pq.ExecStatus.PIPELINE_ABORTED
BEFORE, _QUERY, _SYNC = range(3)  # what is on its way in the queue


class Lane:
    """One connection. Use from the loop's thread only."""

    def __init__(
        self,
        dsn: str,
        limits: LaneLimits,
        *,
        commits: bool = False,
        session: Sequence[bytes] = (),
        on_room: Callable[[], None] | None = None,
    ) -> None:
        self.row = [0] * len(LANE_COLUMNS)
        self._on_room = on_room
        self._dsn = dsn
        self._limits = limits
        self._session = (*SESSION_SETTINGS, *session)
        self._commits = commits
        self._loop = asyncio.get_running_loop()
        self._connection: Any = None
        self._socket = -1
        self._unsent: list[LaneStatement] = []
        self._queue: deque[tuple[int, Any]] = deque()
        self._batches: deque[LaneBatch] = deque()  # sent, their Sync not yet answered
        self._prepared: set[bytes] = set()
        self._generation = 0
        self._departing = self._writing = self._closed = False
        self._connecting: asyncio.Task[None] | None = None
        self.in_flight = 0

    @property
    def is_connected(self) -> bool:
        """Is there a connection?"""
        return self._connection is not None

    @property
    def is_ready(self) -> bool:
        """Can a statement be sent now?"""
        return self._connection is not None and self.in_flight < self._limits.in_flight_max

    @property
    def is_boarding(self) -> bool:
        """Is there room in a batch that leaves at the end of this tick anyway?"""
        return 0 < len(self._unsent) < self._limits.batch_max and self.is_ready

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
        for setting in self._session:
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

    # Sending

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
        statement = LaneStatement(name, sql, params, deadline, done)
        self._unsent.append(statement)
        self.in_flight += 1
        if not self._departing:
            self._departing = True
            self._loop.call_soon(self.depart)
        return statement.give_up

    def depart(self) -> None:
        """Send what has gathered now, instead of at the end of the tick."""
        self._departing = False
        unsent, self._unsent = self._unsent, []
        if not unsent:
            return
        if self._connection is None:
            self._fail(unsent, was_sent=False)
            return
        most = self._limits.batch_max
        if len(unsent) <= most:
            self._send_batch(unsent)
        else:
            for first in range(0, len(unsent), most):
                self._send_batch(unsent[first : first + most])

    def _send_batch(self, statements: Sequence[LaneStatement]) -> None:
        connection = self._connection
        if connection is None:
            self._fail(statements, was_sent=False)
            return
        batch = LaneBatch()
        sent = 0
        try:
            for statement in statements:
                self._submit(connection, statement)
                sent += 1
            self._queue.append((_SYNC, batch))
            self._batches.append(batch)
            self.row[STATEMENTS] += sent
            self.row[SYNCS] += 1
            connection.pipeline_sync()
            if connection.flush() and not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket, self._on_writable)
        except Exception as fault:
            logger.warning("lane.lost", extra={"reason": str(fault)})
            self._lose()
            # One may have reached the queue, whose statements are answered by _lose.
            self._fail([s for s in statements[sent:] if s.error is None], was_sent=False)

    def _submit(self, connection: Any, statement: LaneStatement) -> None:
        name = b"%b_%d" % (statement.name, self._generation)
        statement.tries += 1
        statement.prepared_as = name
        if name not in self._prepared:
            if len(self._prepared) >= self._limits.prepared_max:
                # Which parameters are present is the client's choice; memory is not. Should the
                # batch fail before this is done, the new names do not meet the old ones.
                connection.send_query_params(b"DEALLOCATE ALL", None)
                self._queue.append((BEFORE, None))
                self._prepared.clear()
                self._generation += 1
                name = statement.prepared_as = b"%b_%d" % (statement.name, self._generation)
            connection.send_prepare(name, statement.sql)
            self._queue.append((BEFORE, statement))
            self._prepared.add(name)
        connection.send_query_prepared(name, statement.params)
        self._queue.append((_QUERY, statement))

    def _on_writable(self) -> None:
        try:
            if not self._connection.flush():
                self._loop.remove_writer(self._socket)
                self._writing = False
        except Exception:
            self._lose()

    # Receiving

    def _on_readable(self) -> None:
        connection = self._connection
        queue = self._queue
        try:
            connection.consume_input()
            while queue and not connection.is_busy():
                result = connection.get_result()
                if result is not None:
                    self._on_result(result)
                    queue = self._queue  # a lost lane begins a new one
            if connection is self._connection and connection.status != pq.ConnStatus.OK:
                # libpq may notice between two results that it is over, and then nothing more
                # becomes readable.
                raise ConnectionError("the connection is over")
        except Exception as fault:
            logger.warning("lane.lost", extra={"reason": str(fault)})
            self._lose()
        if self._on_room is not None:
            self._on_room()

    def look(self) -> None:
        """Read what has arrived, if anything has.

        uvloop drops a reader without a word when its socket is reset, as it is when a backend dies
        with statements unread; without this look those in flight would wait for ever.
        """
        if self._connection is not None:
            self._on_readable()

    def _on_result(self, result: Any) -> None:
        step, subject = self._queue[0]
        status = result.status
        if step == _QUERY and status == _TUPLES_OK and not self._commits:
            self._queue.popleft()
            self.in_flight -= 1
            self._tell(subject, result, None)
        elif step == _SYNC:
            self._on_sync(subject, result, status)
        else:
            self._queue.popleft()
            worked = status in (_TUPLES_OK, _COMMAND_OK)
            if step == _QUERY:
                self._on_query(subject, result, worked, status)
            elif not worked and subject is not None:
                # The query behind it comes back aborted; if it is its own fault, for this reason.
                self._prepared.discard(subject.prepared_as)
                if status != _PIPELINE_ABORTED:
                    subject.error = error_of(result)

    def _on_query(self, statement: LaneStatement, result: Any, worked: bool, status: Any) -> None:
        batch = self._batches[0]
        if worked:
            if self._commits:
                statement.result = result
                batch.held.append(statement)
            else:
                self.in_flight -= 1
                self._tell(statement, result, None)
            return
        batch.is_broken = True
        error = statement.error
        if error is None and status != _PIPELINE_ABORTED:
            error = error_of(result)
        statement.error = None
        if statement.tries < self._limits.tries_max and (
            error is None or self._is_innocent(statement, error)
        ):
            batch.again.append(statement)
            return
        error = error or error_of(result)
        self.in_flight -= 1
        self._tell(statement, None, error)

    def _on_sync(self, batch: LaneBatch, result: Any, status: Any) -> None:
        if status != _PIPELINE_SYNC:
            # The commit itself failed, over a deferred constraint for one. The Sync's own result
            # comes next.
            batch.is_broken = True
            if len(batch.held) == 1:
                (statement,) = batch.held
                batch.held = []
                self.in_flight -= 1
                self._tell(statement, None, error_of(result))
            return
        self._queue.popleft()
        self._batches.popleft()
        if batch.is_broken:
            self._repeat(batch.held + batch.again)
            return
        self.in_flight -= len(batch.held)
        for statement in batch.held:
            held, statement.result = statement.result, None
            self._tell(statement, held, None)

    def _repeat(self, statements: list[LaneStatement]) -> None:
        """Run again what failed for another's fault: together once, then each alone."""
        late = [statement for statement in statements if statement.cancelled]
        self.in_flight -= len(late)
        for statement in late:
            self._tell(statement, None, LaneError(CANCELLED, "its deadline passed"))
        statements = [statement for statement in statements if not statement.cancelled]
        if not statements:
            return
        if max(statement.tries for statement in statements) < 2:
            self._send_batch(statements)
            return
        for statement in statements:
            self._send_batch((statement,))

    def _is_innocent(self, statement: LaneStatement, error: LaneError) -> bool:
        """Did the statement fail for a reason that lies with the lane, so that a repeat helps?"""
        if error.sqlstate in (STALE_PLAN, NO_SUCH_STATEMENT):
            self._generation += 1
            return True
        # A cancel is for the connection, not for a statement: it may hit the one behind.
        return error.sqlstate == CANCELLED and not statement.cancelled

    def _tell(self, statement: LaneStatement, result: Any, error: LaneError | None) -> None:
        try:
            statement.done(result, error)
        except Exception:  # one broken callback must not stop the lane
            logger.exception("lane.callback-failed")

    # Ending

    def overdue(self, now: float) -> None:
        """Cancel what runs if a deadline in its batch has passed; drop a backend that hangs.

        Which statement of a batch is running cannot be seen: Postgres holds its answers back until
        the Sync. A cancel that hits another than the late one costs that one a repeat.
        """
        latest = now - self._limits.cancel_grace_s
        is_late = False
        for step, statement in self._queue:
            if step == _SYNC:
                break
            if step != _QUERY:
                continue
            if statement.cancelled:
                if now > statement.cancelled_at + self._limits.unanswered_s:
                    logger.warning("lane.hangs")
                    self._lose()
                    return
            elif statement.deadline <= latest:
                statement.cancelled, statement.cancelled_at = True, now
                is_late = True
        if is_late and self._connection is not None:
            self._loop.run_in_executor(None, _cancel, self._connection.get_cancel())

    def _fail(self, statements: Sequence[LaneStatement], *, was_sent: bool) -> None:
        self.in_flight -= len(statements)
        for statement in statements:
            error = LaneError(CONNECTION_LOST, "the connection was lost", was_sent)
            statement.error = error
            self._tell(statement, None, error)

    def _lose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._loop.remove_reader(self._socket)
            if self._writing:
                self._loop.remove_writer(self._socket)
                self._writing = False
            connection.finish()
        lost, self._queue = self._queue, deque()
        batches, self._batches = self._batches, deque()
        # A statement is answered once: it has one entry with its prepare or two, or is set aside.
        found = {id(entry[1]): entry[1] for entry in lost if isinstance(entry[1], LaneStatement)}
        for batch in batches:
            found |= {id(statement): statement for statement in (*batch.held, *batch.again)}
        self._fail(list(found.values()), was_sent=True)
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
        self.row[RECONNECTS] += 1

    async def close(self) -> None:
        """Close the connection; what is in flight fails."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        self._lose()


def _cancel(handle: Any) -> None:
    try:
        handle.cancel()
    except Exception:
        logger.warning("lane.cancel-failed", exc_info=True)
