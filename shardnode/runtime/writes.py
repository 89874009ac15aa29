"""Writes that are one statement, on pipelined lanes; all others go to the writer's threads.

The statements of one loop tick share a transaction and so a commit; a lane tells of them only once
that is durable, and runs again those that failed for another one's fault (lanes.py).

Invariant: what was answered with a body is committed. A write whose outcome is unknown, because
the connection broke after it was sent, is asked again only under a key: then it happens once,
whether the first try did or not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from modeldefs.kit.buckets import bucket_of
from modeldefs.kit.catalog import Catalog, shard_key_parameter
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.write_plans import BUCKET_SLOT, WritePlan
from modeldefs.wire import calls
from modeldefs.wire.problems import (
    Internal,
    InvalidRequest,
    NotFound,
    Overloaded,
    Problem,
    ShardReset,
    TransactionConflict,
    WrongShard,
)
from shardnode.runtime.forgetting import Forgetting
from shardnode.runtime.idempotency import WriteKey, key_of
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lane_statements import LaneError
from shardnode.runtime.mutations import LOCK_TIMEOUT_MS, RECONNECT_S, TRIES_MAX, Writer
from shardnode.runtime.rows import array_literal
from shardnode.runtime.sqlstates import (
    CONNECTION_LOST,
    DUPLICATE,
    RETRYABLE,
    TERMINATED,
    problem_of_sqlstate,
)
from shardnode.runtime.write_statements import (
    EPOCH_SLOT,
    FINGERPRINT_SLOT,
    HOP_SLOT,
    SCOPE_SLOT,
    WHY,
    keyed_statement,
    unkeyed_statement,
)

logger = logging.getLogger(__name__)

# A statement that waits for a row that another holds makes those behind it wait too. And a plan
# that fits every value is kept: all of these find their row by a key.
WRITE_SESSION = (
    b"SET lock_timeout = %d" % LOCK_TIMEOUT_MS,
    b"SET plan_cache_mode = 'force_generic_plan'",
)
READY_MAX = 4_096

Done = Callable[[Any], None]
Value = Callable[["_Write"], bytes | None]


@dataclass(frozen=True, slots=True)
class _Ready:
    """One statement of an endpoint, ready to be filled and sent."""

    name: bytes
    sql: bytes
    values: tuple[Value, ...]
    plan: WritePlan


@dataclass(slots=True)
class _Write:
    """One write under way."""

    endpoint: Endpoint[Any, Any]
    call: calls.Call
    bucket: int
    epoch: int
    deadline: float
    done: Done
    key: WriteKey | None
    ready: _Ready
    tries: int = 0
    was_lost: bool = False  # a try may have been committed without our knowing


class Writes:
    """Runs the writes of one worker process, each the quickest way that it can take."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        lanes: LanePool,
        writer: Writer,
        shard: str,
        clock: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._lanes, self._writer = lanes, writer
        self._forgetting = Forgetting(lanes)
        self._shard = shard
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._ready: dict[tuple[int, int, bool], _Ready | None] = {}
        self._keys: dict[int, int] = {}  # by endpoint: which parameter places the row

    def submit(
        self,
        endpoint: Endpoint[Any, Any],
        call: calls.Call,
        bucket: int | None,
        epoch: int,
        deadline: float,
        done: Done,
    ) -> None:
        """Run a mutation; ``done`` gets the JSON of its result, a replay of it, or a problem.

        Raises:
            Overloaded: Too many writes wait already.
            InvalidRequest: The call names no bucket, or not that of its key.
        """
        if bucket is None:
            raise InvalidRequest("a write names its bucket")
        if bucket_of(self._key_text(endpoint, call)) != bucket:
            raise InvalidRequest("the bucket is not that of the shard key")
        key = key_of(endpoint, call)
        ready = self._statement(endpoint, call, is_keyed=key is not None)
        if ready is None:
            self._writer.submit(endpoint, call, bucket, epoch, deadline, done)
            return
        self._send(_Write(endpoint, call, bucket, epoch, deadline, done, key, ready))

    async def open(self) -> None:
        """Connect the lanes."""
        await self._lanes.open()
        self._forgetting.start()

    async def close(self) -> None:
        """Wait for what runs and close lanes and threads."""
        self._forgetting.stop()
        await self._writer.close()
        await self._lanes.close()

    def _key_text(self, endpoint: Endpoint[Any, Any], call: calls.Call) -> str:
        bit = self._keys.get(endpoint.number)
        if bit is None:
            names = [spec.name for spec in endpoint.parameters]
            bit = self._keys[endpoint.number] = names.index(shard_key_parameter(endpoint))
        if not call.mask >> bit & 1:
            raise InvalidRequest("the call does not name its shard key")
        return str(call.values[(call.mask & (1 << bit) - 1).bit_count()])

    # -- statements ------------------------------------------------------------------------------

    def _statement(
        self, endpoint: Endpoint[Any, Any], call: calls.Call, *, is_keyed: bool
    ) -> _Ready | None:
        # A null is what None is in Python, so it decides the plan as absence does.
        given, values = call.mask, iter(call.values)
        if None in call.values:
            for bit in range(call.mask.bit_length()):
                if call.mask >> bit & 1 and next(values) is None:
                    given &= ~(1 << bit)
        place = (endpoint.number, given, is_keyed)
        if place not in self._ready:
            if len(self._ready) >= READY_MAX:
                del self._ready[next(iter(self._ready))]
            self._ready[place] = self._make(endpoint, given, is_keyed)
        return self._ready[place]

    def _make(self, endpoint: Endpoint[Any, Any], given: int, is_keyed: bool) -> _Ready | None:
        names = [spec.name for bit, spec in enumerate(endpoint.parameters) if given >> bit & 1]
        plan = self._catalog.write_plan(endpoint, frozenset(names))
        if isinstance(plan, str):
            return None
        statement = keyed_statement(plan) if is_keyed else unkeyed_statement(plan)
        return _Ready(
            name=b"w%d_%x_%d" % (endpoint.number, given, is_keyed),
            sql=statement.sql.encode(),
            values=tuple(_value(slot, names) for slot in statement.slots),
            plan=plan,
        )

    # -- one write -------------------------------------------------------------------------------

    def _send(self, write: _Write) -> None:
        lane = self._lanes.pick()
        if lane is None:
            if not write.tries:
                raise Overloaded(retry_after_ms=1_000)
            write.done(self._lost(write))
            return
        write.tries += 1
        lane.send(
            name=write.ready.name,
            sql=write.ready.sql,
            params=[value(write) for value in write.ready.values],
            deadline=write.deadline,
            done=partial(self._on_result, write),
        )

    def _on_result(self, write: _Write, result: Any, error: LaneError | None) -> None:
        if error is not None:
            self._on_error(write, error)
        elif result.ntuples:
            write.done(result.get_value(0, 0))
        else:
            self._ask_why(write, None)

    def _on_error(self, write: _Write, error: LaneError) -> None:
        logger.info("write.refused", extra={"sqlstate": error.sqlstate})
        if error.sqlstate == CONNECTION_LOST:
            self._on_lost(write, was_sent=error.was_sent)
        elif error.sqlstate == TERMINATED:
            # It says so only of a statement that runs, and takes that back.
            self._on_lost(write, was_sent=False)
        elif error.sqlstate == DUPLICATE and write.key is not None:
            # Of the row, or of the key: then another try under it was quicker, and is committed.
            self._ask_why(write, problem_of_sqlstate(DUPLICATE, is_write=True, shard=self._shard))
        elif error.sqlstate in RETRYABLE and self._may_repeat(write):
            self._send(write)
        else:
            is_clients = write.key is not None and not write.key.hop
            write.done(
                problem_of_sqlstate(
                    error.sqlstate, is_write=True, shard=self._shard, is_keyed=is_clients
                )
            )

    def _on_lost(self, write: _Write, *, was_sent: bool) -> None:
        write.was_lost = write.was_lost or was_sent
        if (write.key is not None or not write.was_lost) and self._may_repeat(write):
            self._loop.call_later(RECONNECT_S, self._again, write)
        else:
            write.done(self._lost(write))

    def _again(self, write: _Write) -> None:
        if self._clock() < write.deadline:
            self._send(write)
        else:
            write.done(self._lost(write))

    def _lost(self, write: _Write) -> Problem:
        problem = problem_of_sqlstate(CONNECTION_LOST, is_write=True, shard=self._shard)
        return ShardReset(shards=problem.shards) if write.was_lost else problem

    def _may_repeat(self, write: _Write) -> bool:
        return write.tries < TRIES_MAX and self._clock() < write.deadline

    # -- why nothing was done --------------------------------------------------------------------

    def _ask_why(self, write: _Write, otherwise: Problem | None) -> None:
        lane = self._lanes.pick()
        if lane is None:
            write.done(otherwise or Overloaded(retry_after_ms=1_000))
            return
        scope = write.key.scope if write.key is not None else "0" * 32
        lane.send(
            name=b"why",
            sql=WHY.encode(),
            params=[b"%d" % write.bucket, b"%d" % write.epoch, scope.encode()],
            deadline=write.deadline,
            done=partial(self._on_reason, write, otherwise),
        )

    def _on_reason(
        self, write: _Write, otherwise: Problem | None, result: Any, error: LaneError | None
    ) -> None:
        if error is not None:
            # The write itself did nothing; it is only not known why.
            write.done(
                otherwise or problem_of_sqlstate(error.sqlstate, is_write=True, shard=self._shard)
            )
            return
        owned, stored, body = (result.get_value(0, column) for column in range(3))
        try:
            if stored is not None and write.key is not None:
                write.done(write.key.replay(bytes.fromhex(stored.decode()), body))
                return
            raise self._reason(write, otherwise, is_owned=owned == b"t")
        except TransactionConflict as conflict:
            # The key was stored and pruned meanwhile, or the bucket went and came back.
            if self._may_repeat(write):
                self._send(write)
            else:
                write.done(conflict)
        except Problem as problem:
            write.done(problem)
        except Exception:
            logger.exception("write.failed")
            write.done(Internal())

    def _reason(self, write: _Write, otherwise: Problem | None, *, is_owned: bool) -> Problem:
        if otherwise is not None:
            return otherwise
        if not is_owned:
            return WrongShard()
        return NotFound() if write.ready.plan.must_exist else TransactionConflict()


def _value(slot: str, names: list[str]) -> Value:
    framework: dict[str, Value] = {
        BUCKET_SLOT: lambda write: b"%d" % write.bucket,
        EPOCH_SLOT: lambda write: b"%d" % write.epoch,
        SCOPE_SLOT: lambda write: write.key.scope.encode() if write.key else None,
        FINGERPRINT_SLOT: lambda write: _bytea(write.key),
        HOP_SLOT: lambda write: b"true" if write.key and write.key.hop else b"false",
    }
    if slot in framework:
        return framework[slot]
    at = names.index(slot)

    def own(write: _Write) -> bytes | None:
        values = write.call.values
        if len(values) != len(names):
            values = [value for value in values if value is not None]
        value = values[at]
        return array_literal(value) if isinstance(value, list) else str(value).encode()

    return own


def _bytea(key: WriteKey | None) -> bytes | None:
    return None if key is None else b"\\x" + key.fingerprint.hex().encode()
