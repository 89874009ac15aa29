"""Writes that stay Python: the author's function, in one transaction, on the owner of the row.

The transaction first takes ``FOR SHARE`` on the bucket's row at the caller's epoch, so a bucket
cannot change owner under a write; and it names its bucket, so that a trigger refuses rows of any
other. What the client gets is read back from the row itself, in the same transaction, and is
stored there under the request's key: a repeat finds it and writes nothing. A dry run
(``Prefer: tx=rollback``) does all of that but the storing, and is rolled back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from django.db import DEFAULT_DB_ALIAS, Error, connection, connections, models, transaction
from psycopg import RawCursor

from modeldefs.kit.declared_problems import DeclaredProblem, problem_of_constraint
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.statements import LIMIT_SLOT, Statement, page_statement
from modeldefs.kit.tracing import Param
from modeldefs.kit.wireforms import DURATION, form_of
from modeldefs.wire import calls
from modeldefs.wire.problems import (
    DeadlineExceeded,
    Internal,
    Overloaded,
    Problem,
    ShardReset,
    TransactionConflict,
    WrongShard,
)
from shardnode.runtime.conditional_writes import hold
from shardnode.runtime.idempotency import WriteKey, key_of, stored_form
from shardnode.runtime.python_calls import called, plain, problem_of, python_arguments
from shardnode.runtime.rows import RowEncoder
from shardnode.runtime.sqlstates import (
    CONNECTION_LOST,
    DUPLICATE,
    RETRYABLE,
    problem_of_sqlstate,
)
from shardnode.runtime.write_runs import LOCK_TIMEOUT_MS, RECONNECT_S, TRIES_MAX, Done

logger = logging.getLogger(__name__)

WAITING_MAX = 512
_CLAIM = (
    "SELECT i.fingerprint, i.body FROM sp_bucket b "
    "LEFT JOIN sp_idempotency i ON i.bucket = b.bucket AND i.scope = %s "
    "WHERE b.bucket = %s AND b.epoch = %s AND b.state = 'owned' FOR SHARE OF b"
)
_CLAIM_ALONE = _CLAIM.replace("FOR SHARE", "FOR UPDATE")
_encode = msgspec.json.Encoder(decimal_format="string").encode


class Writer:
    """Runs the mutations of one worker process on a few threads, each with its own connection."""

    def __init__(
        self,
        *,
        shard: str,
        clock: Callable[[], float],
        threads: int = 8,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._shard = shard
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._opened: list[Any] = []  # each thread's connection
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="writer", initializer=self._begin_thread
        )
        self._waiting = 0
        self._local = threading.local()  # per thread: has a transaction begun?
        self._waiting_max = waiting_max
        self._read_back: dict[type, tuple[Statement, RowEncoder]] = {}

    def submit(
        self,
        endpoint: Endpoint[Any, Any],
        call: calls.Call,
        bucket: int,
        epoch: int,
        deadline: float,
        done: Done,
    ) -> None:
        """Run a mutation; ``done`` gets the JSON of its result, or a problem.

        Raises:
            Overloaded: Too many writes wait already.
        """
        if self._waiting >= self._waiting_max:
            raise Overloaded(retry_after_ms=1_000)
        self._waiting += 1
        future = self._loop.run_in_executor(
            self._pool, self._run, endpoint, call, bucket, epoch, deadline
        )
        future.add_done_callback(lambda finished: self._finish(finished, done))

    def _finish(self, finished: asyncio.Future[Any], done: Done) -> None:
        self._waiting -= 1
        fault = finished.exception()
        if fault is not None:
            logger.error("write.failed", exc_info=fault)
            done(Internal())
        else:
            done(finished.result())

    async def close(self) -> None:
        """Wait for what runs, end the threads and close their connections."""
        await self._loop.run_in_executor(None, self._end_threads)

    def _end_threads(self) -> None:
        self._pool.shutdown()
        for opened in self._opened:
            opened.inc_thread_sharing()  # its own thread has ended
            opened.close()

    # -- in a thread -----------------------------------------------------------------------------

    def _begin_thread(self) -> None:
        self._opened.append(connections[DEFAULT_DB_ALIAS])

    def _run(
        self,
        endpoint: Endpoint[Any, Any],
        call: calls.Call,
        bucket: int,
        epoch: int,
        deadline: float,
    ) -> bytes | calls.Replayed | Problem:
        problem: Problem = TransactionConflict()
        key = key_of(endpoint, call)
        was_lost = False  # a try may have been committed without our knowing
        was_twin = False  # a row was in the way of the last try, so this one looks whose it is
        for last in (*[False] * (TRIES_MAX - 1), True):
            left_ms = int((deadline - self._clock()) * 1_000)
            if left_ms <= 0:
                return _unknown(key) if was_lost else DeadlineExceeded()
            try:
                return self._attempt(endpoint, call, bucket, epoch, left_ms, key)
            except Problem as refused:
                return refused
            except Error as fault:
                sqlstate = _sqlstate_of(fault)
                logger.info("write.refused", extra={"sqlstate": sqlstate})
                connection.close_if_unusable_or_obsolete()
                is_repeatable = sqlstate in RETRYABLE
                is_clients = key is not None and not key.hop
                problem = problem_of_constraint(
                    endpoint.options.problems, _constraint_of(fault)
                ) or problem_of_sqlstate(
                    sqlstate, is_write=True, shard=self._shard, is_keyed=is_clients
                )
                if problem.code == "shard-unavailable" and self._local.begun and not call.rollback:
                    # The connection may have been lost inside COMMIT: nobody knows.
                    was_lost = True
                    problem = _unknown(key, problem)
                    is_repeatable = key is not None
                    time.sleep(0 if last else RECONNECT_S)
                elif was_lost and problem.status >= 500:
                    # Whether the lost try was done is not known by one that did not come through.
                    problem = _unknown(key, problem)
                elif sqlstate == DUPLICATE and key is not None:
                    # Another request with this key was quicker, if the next try finds its answer.
                    is_repeatable = True
                    if last and not was_twin:
                        problem = _unknown(key)  # nobody has looked since that row is there
                if not is_repeatable:
                    return problem
                was_twin = sqlstate == DUPLICATE
            except Exception as fault:
                return problem_of(fault, endpoint)
        return problem

    def _attempt(
        self,
        endpoint: Endpoint[Any, Any],
        call: calls.Call,
        bucket: int,
        epoch: int,
        left_ms: int,
        key: WriteKey | None,
    ) -> bytes | calls.Replayed | Problem:
        arguments = python_arguments(endpoint, call)
        self._local.begun = False
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('sp.bucket', %s, true), "
                    "set_config('statement_timeout', %s, true), "
                    "set_config('lock_timeout', %s, true)",
                    [str(bucket), str(left_ms), str(LOCK_TIMEOUT_MS)],
                )
                # That a row is absent stays so as long as nobody else writes in its bucket.
                cursor.execute(
                    _CLAIM_ALONE if call.condition == [calls.ABSENT] else _CLAIM,
                    [key.scope if key is not None else None, bucket, epoch],
                )
                found = cursor.fetchone()
            if found is None:
                raise WrongShard
            if key is not None and found[0] is not None:
                return key.replay(bytes(found[0]), str(found[1]).encode())
            if call.condition is not None:
                hold(endpoint, call, bucket)
            self._local.begun = True
            answer = self._answer(endpoint, arguments)
            if call.rollback:
                _undo()
            elif key is not None:
                _remember(key, bucket, answer)
            return answer

    def _answer(self, endpoint: Endpoint[Any, Any], arguments: dict[str, Any]) -> bytes | Problem:
        """Return what the function returned, or refused; of a refusal nothing else is left."""
        if not endpoint.options.problems:
            return self._encoded(called(endpoint, arguments))
        try:
            with transaction.atomic():
                return self._encoded(called(endpoint, arguments))
        except DeclaredProblem as refused:
            return refused

    def _encoded(self, result: Any) -> bytes:
        if isinstance(result, models.Model):
            return self._stored(result)
        if isinstance(result, models.QuerySet):
            raise DefinitionError("no-row", "a mutation returns rows, not a QuerySet")
        return _encode(plain(result))

    def _stored(self, row: models.Model) -> bytes:
        """Return the row as it is stored: with defaults, and the same bytes as a read gives.

        Raises:
            DefinitionError: It is not stored, so all that was written is rolled back.
        """
        if row.pk is None:
            raise DefinitionError("no-row", "a mutation returned a row that was never stored")
        statement, encoder = self._read_back_of(type(row))
        connection.ensure_connection()
        if any(column.form is DURATION for column in statement.columns):
            with connection.cursor() as cursor:  # ends with the transaction
                cursor.execute("SET LOCAL intervalstyle = 'iso_8601'")
        with connection.wrap_database_errors, RawCursor(connection.connection) as raw:
            values = self._values_of(row)
            raw.execute(statement.sql, [values[slot] for slot in statement.slots])
            if raw.pgresult is None or not raw.pgresult.ntuples:
                raise DefinitionError("no-row", "a mutation returned a row that is not stored")
            joined, _, _ = encoder.encode_joined(raw.pgresult, 1)
            return joined

    def _read_back_of(self, model: Any) -> tuple[Statement, RowEncoder]:
        known = self._read_back.get(model)
        if known is None:
            chosen = model._default_manager.filter(pk=Param("pk", form_of(model._meta.pk).pg_type))
            statement = page_statement(chosen, (), after=False)
            known = self._read_back[model] = statement, RowEncoder(statement.columns)
        return known

    def _values_of(self, row: models.Model) -> dict[str, Any]:
        return {"pk": str(row.pk), LIMIT_SLOT: 1}


def _unknown(key: WriteKey | None, problem: Problem | None = None) -> ShardReset:
    """Return what is told of a write of which nobody knows whether it was done.

    Under a key of the client's the next try finds out, and does nothing twice.
    """
    is_safe = key is not None and not key.hop
    shards = problem.shards if problem is not None else ()
    return ShardReset(shards=shards, members={"retryable": is_safe})


def _undo() -> None:
    """Have the transaction that runs rolled back, once all that a commit would check was."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    transaction.set_rollback(True)


def _remember(key: WriteKey, bucket: int, answer: bytes | Problem) -> None:
    """Store the answer under its key, in the transaction that runs."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO sp_idempotency (bucket, scope, fingerprint, hop, body) "
            "VALUES (%s, %s, %s, %s, %s)",
            [bucket, key.scope, key.fingerprint, key.hop, stored_form(answer)],
        )


def _sqlstate_of(fault: Error) -> str:
    return str(getattr(fault.__cause__, "sqlstate", None) or CONNECTION_LOST)


def _constraint_of(fault: Error) -> str:
    diagnostic = getattr(fault.__cause__, "diag", None)
    return str(getattr(diagnostic, "constraint_name", None) or "")
