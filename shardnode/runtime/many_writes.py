"""Batches: the items of a request that lie on this shard, written by one statement or not at all.

They have lanes of their own, one batch to a Sync, so that a long one holds up no single write and
nobody's failure is another's. What becomes of a statement on its lane, ``write_runs`` sees to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from modeldefs.kit.buckets import bucket_of
from modeldefs.kit.catalog import Catalog, shard_key_parameter
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.many import ITEMS_MAX, ManyEndpoint, insert_of, variant_of
from modeldefs.kit.many_answers import ERRORS_MAX
from modeldefs.kit.write_plans import BatchInsert, Stored
from modeldefs.wire.calls import ManyCall
from modeldefs.wire.problems import (
    Conflict,
    DefinitionFault,
    Forbidden,
    InputError,
    InvalidRequest,
    Problem,
)
from shardnode.runtime.filtered_lanes import FilteredParams
from shardnode.runtime.idempotency import key_of
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lane_statements import LaneError
from shardnode.runtime.many_statements import WHY_MANY, many_statement, stored_items
from shardnode.runtime.rows import array_literal
from shardnode.runtime.write_runs import NO_SCOPE, Done, Question, Write, WriteRunner
from shardnode.runtime.writes import bytea

READY_MAX = 1_024


@dataclass(slots=True)
class _Batch(Write):
    """One batch under way."""

    buckets: bytes = b""
    epochs: bytes = b""

    def question(self) -> Question:
        """Return what to ask when nothing was done."""
        scope = self.key.scope if self.key is not None else NO_SCOPE
        params = [self.buckets, self.epochs, b"%d" % self.bucket, scope.encode()]
        return Question(b"why_many", WHY_MANY.encode(), params)


@dataclass(frozen=True, slots=True)
class _Served:
    """What is known of an endpoint before its first batch."""

    whole: BatchInsert
    members: tuple[str, ...]
    key_place: int  # of the parameter that places the row
    optional: tuple[int, ...]  # the places of what an item need not give
    stores: tuple[Stored, ...]  # what the fields of the caller's row filter are set to


class ManyWrites:
    """Runs the batches of one worker process."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        lanes: LanePool,
        shard: str,
        clock: Callable[[], float],
        label: bytes = b"",
    ) -> None:
        self._label = label  # ahead of statements' names, where others use the same lanes
        self._catalog = catalog
        self._lanes = lanes
        self._runner = WriteRunner(lanes=lanes, shard=shard, clock=clock)
        self._served: dict[int, _Served] = {}
        self._kinds: dict[tuple[int, frozenset[str]], BatchInsert] = {}
        self._ready: dict[tuple[int, tuple[BatchInsert, ...], bool], tuple[bytes, bytes]] = {}
        self._made = 0

    async def open(self) -> None:
        """Connect the lanes."""
        await self._lanes.open()

    async def close(self) -> None:
        """Close the lanes."""
        await self._lanes.close()

    def submit(self, endpoint: ManyEndpoint, call: ManyCall, deadline: float, done: Done) -> None:
        """Write the items; ``done`` gets their rows with LF between them, a replay, or a problem.

        Raises:
            Overloaded: Too many batches wait already.
            InvalidRequest: The call does not fit the endpoint, or its items not its buckets.
        """
        served = self._known(endpoint)
        buckets = _checked(endpoint, call, served)
        inserts, kinds = self._inserts(endpoint, call, served)
        key = key_of(endpoint, call)
        name, sql = self._statement(endpoint, inserts, is_keyed=key is not None)
        params: list[bytes | None] = [array_literal(column) for column in call.columns]
        params.append(_numbers(buckets))
        if len(inserts) > 1:
            params.append(_numbers(kinds))
        owned, epochs = _numbers(call.buckets), _numbers(call.epochs)
        params += (owned, epochs)
        first = call.buckets[0]  # that the key is kept with
        if key is not None:
            hop = b"true" if key.hop else b"false"
            params += (b"%d" % first, key.scope.encode(), bytea(key), hop)
        if call.row_filter is not None:
            params = FilteredParams(params, call.row_filter)
            self._check_stored(endpoint, call, served)
        told = partial(self._on_outcome, endpoint, call, inserts[0].key, deadline, done)
        self._runner.send(
            _Batch(
                name=name,
                sql=sql,
                params=params,
                bucket=first,
                epoch=call.epochs[0],
                deadline=deadline,
                done=told,
                key=key,
                problems=endpoint.options.problems,
                buckets=owned,
                epochs=epochs,
            )
        )

    def _check_stored(self, endpoint: ManyEndpoint, call: ManyCall, served: _Served) -> None:
        """Refuse to store what the caller's row filter would hide from it."""
        names = [spec.name for spec in endpoint.parameters]
        for stored in served.stores:
            own = (call.row_filter or {}).get(stored.field)
            texts = call.columns[names.index(stored.parameter)] if stored.parameter else None
            for place, text in enumerate(texts or [stored.constant]):
                if text != own:
                    raise Forbidden(
                        f"the caller's row filter does not allow the {stored.field} of item "
                        f"{place}"
                    )

    # -- statements ------------------------------------------------------------------------------

    def _known(self, endpoint: ManyEndpoint) -> _Served:
        known = self._served.get(endpoint.number)
        if known is None:
            every = frozenset(spec.name for spec in endpoint.parameters)
            plan = self._catalog.write_plan(endpoint.single, every)
            whole = insert_of(plan)
            assert not isinstance(plan, str)
            names = [spec.name for spec in endpoint.parameters]
            known = self._served[endpoint.number] = _Served(
                whole,
                tuple(column.name for column in plan.columns),
                names.index(shard_key_parameter(endpoint)),
                tuple(n for n, spec in enumerate(endpoint.parameters) if _may_lack(spec)),
                plan.stores,
            )
        return known

    def _inserts(
        self, endpoint: ManyEndpoint, call: ManyCall, served: _Served
    ) -> tuple[tuple[BatchInsert, ...], list[int]]:
        """Return the INSERTs that the items take, and of each item which."""
        lacking = [n for n in served.optional if None in call.columns[n]]
        if not lacking:
            return (served.whole,), []
        found: dict[BatchInsert, int] = {}
        by_pattern: dict[tuple[bool, ...], int] = {}
        kinds = []
        for cells in zip(*(call.columns[n] for n in lacking), strict=True):
            pattern = tuple(cell is None for cell in cells)
            kind = by_pattern.get(pattern)
            if kind is None:
                absent = {n for n, is_absent in zip(lacking, pattern, strict=True) if is_absent}
                insert = self._insert(endpoint, served, absent)
                kind = by_pattern[pattern] = found.setdefault(insert, len(found))
            kinds.append(kind)
        # In one order, whichever item comes first: so there are fewer statements.
        ordered = sorted(found, key=lambda insert: (insert is not served.whole, insert.values))
        places = [ordered.index(insert) for insert in found]
        return tuple(ordered), [places[kind] for kind in kinds]

    def _insert(self, endpoint: ManyEndpoint, served: _Served, absent: set[int]) -> BatchInsert:
        given = frozenset(s.name for n, s in enumerate(endpoint.parameters) if n not in absent)
        known = self._kinds.get((endpoint.number, given))
        if known is None:
            if len(self._kinds) >= READY_MAX:
                self._kinds.clear()
            try:
                own = insert_of(self._catalog.write_plan(endpoint.single, given))
            except DefinitionError as fault:
                raise DefinitionFault from fault
            known = variant_of(served.whole, own, given)
            self._kinds[endpoint.number, given] = known
        return known

    def _statement(
        self, endpoint: ManyEndpoint, inserts: tuple[BatchInsert, ...], *, is_keyed: bool
    ) -> tuple[bytes, bytes]:
        place = (endpoint.number, inserts, is_keyed)
        known = self._ready.get(place)
        if known is None:
            if len(self._ready) >= READY_MAX:
                del self._ready[next(iter(self._ready))]
            members = self._known(endpoint).members
            sql = many_statement(endpoint, inserts, members, keyed=is_keyed)
            self._made += 1
            name = b"%bm%d_%d" % (self._label, endpoint.number, self._made)
            known = self._ready[place] = (name, sql.encode())
        return known

    # -- which items conflict --------------------------------------------------------------------

    def _on_outcome(
        self,
        endpoint: ManyEndpoint,
        call: ManyCall,
        key: str,
        deadline: float,
        done: Done,
        outcome: Any,
    ) -> None:
        lane = self._lanes.pick() if isinstance(outcome, Conflict) else None
        if lane is None:
            done(outcome)
            return
        (place,) = (n for n, spec in enumerate(endpoint.parameters) if spec.name == key)
        lane.send(
            name=b"stored%d" % endpoint.number,
            sql=stored_items(endpoint, key).encode(),
            params=[array_literal(call.columns[place])],
            deadline=deadline,
            done=partial(self._on_stored, call.columns[place], outcome, done),
        )

    def _on_stored(
        self,
        keys: Sequence[str | None],
        conflict: Problem,
        done: Done,
        result: Any,
        error: LaneError | None,
    ) -> None:
        listed = result.get_value(0, 0) if error is None else None
        stored = [int(place) for place in listed.split(b",")] if listed else []
        told = [_refused(place, "is stored already") for place in stored[:ERRORS_MAX]]
        told += [_refused(place, "has the key of an item before it") for place in _doubled(keys)]
        done(Conflict(conflict.detail, errors=told[:ERRORS_MAX]))


def _refused(place: int, detail: str) -> InputError:
    return InputError("conflict", detail, pointer=f"/items/{place}")


def _doubled(keys: Sequence[str | None]) -> list[int]:
    seen: set[str | None] = set()
    doubled = []
    for place, key in enumerate(keys):
        if key in seen:
            doubled.append(place)
        seen.add(key)
    return doubled


def _may_lack(spec: Any) -> bool:
    return spec.nullable or not (spec.required or spec.default is not None)


def _checked(endpoint: ManyEndpoint, call: ManyCall, served: _Served) -> list[int]:
    """Return the bucket of each item; refuse what no caller of ours sends."""
    counts = {len(column) for column in call.columns}
    fits = len(call.columns) == len(endpoint.parameters) and len(counts) == 1
    if not fits or not 1 <= counts.pop() <= ITEMS_MAX:
        raise InvalidRequest("the call does not fit the endpoint")
    for place, column in enumerate(call.columns):
        if None in column and place not in served.optional:
            raise InvalidRequest("the call lacks a parameter")
    buckets: list[int] = [bucket_of(str(key)) for key in call.columns[served.key_place]]
    if sorted(set(buckets)) != call.buckets or len(call.epochs) != len(call.buckets):
        raise InvalidRequest("the buckets are not those of the items")
    return buckets


def _numbers(numbers: Sequence[int]) -> bytes:
    return ("{" + ",".join(map(str, numbers)) + "}").encode()
