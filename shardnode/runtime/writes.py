"""Writes that are one statement, on pipelined lanes; all others go to the writer's threads.

The statements of one loop tick share a transaction and so a commit; a lane tells of them only once
that is durable, and runs again those that failed for another one's fault (lanes.py). What becomes
of a statement on its lane, ``write_runs`` sees to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modeldefs.kit.buckets import bucket_of
from modeldefs.kit.catalog import Catalog, shard_key_parameter
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.row_filters import FILTER_PREFIX, filter_columns
from modeldefs.kit.write_plans import BUCKET_SLOT, WritePlan
from modeldefs.wire import calls
from modeldefs.wire.calls import ANY_VERSION
from modeldefs.wire.problems import Forbidden, InvalidRequest
from shardnode.runtime.conditional_writes import ConditionalWrite, check_of
from shardnode.runtime.filtered_lanes import FilteredParams
from shardnode.runtime.forgetting import Forgetting
from shardnode.runtime.idempotency import WriteKey, key_of
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.mutations import Writer
from shardnode.runtime.rows import array_literal
from shardnode.runtime.write_runs import Done, Question, Write, WriteRunner
from shardnode.runtime.write_statements import (
    EPOCH_SLOT,
    FINGERPRINT_SLOT,
    HOP_SLOT,
    SCOPE_SLOT,
    VERSIONS_SLOT,
    Guard,
    WriteStatement,
    guard_of,
    keyed_statement,
    unkeyed_statement,
)

READY_MAX = 4_096


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the parameters of a statement are taken from."""

    call: calls.Call
    bucket: int
    epoch: int
    key: WriteKey | None


Value = Callable[[_Asked], bytes | None]


@dataclass(frozen=True, slots=True)
class _Ready:
    """One statement of an endpoint, ready to be filled and sent."""

    name: bytes
    sql: bytes
    values: tuple[Value, ...]
    plan: WritePlan
    why: _Ready | None = None  # under a condition: the statement that asks why nothing was done


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
        label: bytes = b"",
    ) -> None:
        self._label = label  # ahead of statements' names, where others use the same lanes
        self._catalog = catalog
        self._lanes, self._writer = lanes, writer
        self._runner = WriteRunner(lanes=lanes, shard=shard, clock=clock)
        self._forgetting = Forgetting(lanes)
        self._ready: dict[tuple[int, int, bool, bool | None], _Ready | None] = {}
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
        ready = None
        if not call.rollback:  # on a lane it would be committed with its neighbours
            ready = self._statement(endpoint, call, is_keyed=key is not None)
        if call.row_filter is not None and ready is not None:
            self._check_stored(endpoint, call, ready.plan)
        if call.condition is not None and ready is not None:
            self._send_conditional(
                endpoint, ready, _Asked(call, bucket, epoch, key), deadline, done
            )
            return
        if ready is None:
            self._writer.submit(endpoint, call, bucket, epoch, deadline, done)
            return
        asked = _Asked(call, bucket, epoch, key)
        self._runner.send(
            Write(
                ready.name,
                ready.sql,
                _filled(ready, asked),
                bucket,
                epoch,
                deadline,
                done,
                key,
                endpoint.options.problems,
                ready.plan.must_exist,
            )
        )

    def _send_conditional(
        self,
        endpoint: Endpoint[Any, Any],
        ready: _Ready,
        asked: _Asked,
        deadline: float,
        done: Done,
    ) -> None:
        why = ready.why
        assert why is not None
        self._runner.send(
            ConditionalWrite(
                ready.name,
                ready.sql,
                _filled(ready, asked),
                asked.bucket,
                asked.epoch,
                deadline,
                done,
                asked.key,
                endpoint.options.problems,
                ready.plan.must_exist,
                why=Question(why.name, why.sql, _filled(why, asked)),
                condition=asked.call.condition or (),
            )
        )

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

    def _check_stored(
        self, endpoint: Endpoint[Any, Any], call: calls.Call, plan: WritePlan
    ) -> None:
        """Refuse to store what the caller's row filter would hide from it."""
        for stored in plan.stores:
            text = stored.constant
            if stored.parameter:
                bit = [spec.name for spec in endpoint.parameters].index(stored.parameter)
                text = str(call.values[(call.mask & (1 << bit) - 1).bit_count()])
            if text != (call.row_filter or {}).get(stored.field):
                raise Forbidden(f"the caller's row filter does not allow this {stored.field}")

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
        guard = None
        if call.condition is not None:
            guard = guard_of(
                check_of(endpoint),
                call.condition,
                filter_columns(endpoint.model, call.row_filter or ()),
            )
        place = (endpoint.number, given, is_keyed, None if guard is None else guard.is_absence)
        if place not in self._ready:
            if len(self._ready) >= READY_MAX:
                del self._ready[next(iter(self._ready))]
            self._ready[place] = self._make(endpoint, given, is_keyed, guard)
        return self._ready[place]

    def _make(
        self, endpoint: Endpoint[Any, Any], given: int, is_keyed: bool, guard: Guard | None
    ) -> _Ready | None:
        names = [spec.name for bit, spec in enumerate(endpoint.parameters) if given >> bit & 1]
        plan = self._catalog.write_plan(endpoint, frozenset(names))
        if isinstance(plan, str):
            return None
        make = keyed_statement if is_keyed else unkeyed_statement
        name = b"%bw%d_%x_%d" % (self._label, endpoint.number, given, is_keyed)
        if guard is None:
            return _ready(name, make(plan), names, plan)
        name += b"_a" if guard.is_absence else b"_m"
        why = _ready(b"why_" + name, guard.question(), names, plan)
        return replace(_ready(name, make(plan, guard), names, plan), why=why)


def _ready(name: bytes, statement: WriteStatement, names: list[str], plan: WritePlan) -> _Ready:
    values = tuple(_value(slot, names) for slot in statement.slots)
    return _Ready(name, statement.sql.encode(), values, plan)


def _filled(ready: _Ready, asked: _Asked) -> Sequence[bytes | None]:
    params = [value(asked) for value in ready.values]
    row_filter = asked.call.row_filter
    return params if row_filter is None else FilteredParams(params, row_filter)


def _value(slot: str, names: list[str]) -> Value:
    framework: dict[str, Value] = {
        BUCKET_SLOT: lambda asked: b"%d" % asked.bucket,
        EPOCH_SLOT: lambda asked: b"%d" % asked.epoch,
        SCOPE_SLOT: lambda asked: asked.key.scope.encode() if asked.key else None,
        VERSIONS_SLOT: _versions,
        FINGERPRINT_SLOT: lambda asked: bytea(asked.key),
        HOP_SLOT: lambda asked: b"true" if asked.key and asked.key.hop else b"false",
    }
    if slot in framework:
        return framework[slot]
    if slot.startswith(FILTER_PREFIX):
        field = slot.removeprefix(FILTER_PREFIX)
        return lambda asked: (asked.call.row_filter or {})[field].encode()
    at = names.index(slot)

    def own(asked: _Asked) -> bytes | None:
        values = asked.call.values
        if len(values) != len(names):
            values = [value for value in values if value is not None]
        value = values[at]
        return array_literal(value) if isinstance(value, list) else str(value).encode()

    return own


def _versions(asked: _Asked) -> bytes | None:
    condition = asked.call.condition
    return None if condition in (None, [ANY_VERSION]) else array_literal(condition or [])


def bytea(key: WriteKey | None) -> bytes | None:
    """Return a key's fingerprint as Postgres reads it."""
    return None if key is None else b"\\x" + key.fingerprint.hex().encode()
