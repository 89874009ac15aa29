"""Running calls on this shard: reads on pipelined lanes, writes in transactions of their own.

A call is checked before anything runs: is the bucket ours at the caller's epoch, do the parameters
fit the endpoint, is there time left. Then it goes to a lane, or to the writer's threads, and its
answer comes back by callback. Nothing here blocks the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from modeldefs.kit.aggregates import GroupStatement
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.many import ManyEndpoint
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.snapshots import tagged_sql
from modeldefs.kit.statements import LIMIT_SLOT, Statement
from modeldefs.wire import calls
from modeldefs.wire.meters import ROWS, Row, new_row
from modeldefs.wire.problems import (
    DeadlineExceeded,
    DefinitionFault,
    Internal,
    InvalidRequest,
    Problem,
    UnknownEndpoint,
)
from shardnode.runtime.asides import Asides
from shardnode.runtime.fillers import Filler, filler_of
from shardnode.runtime.filtered_lanes import FilteredParams
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lanes import Lane, LaneError
from shardnode.runtime.many_writes import ManyWrites
from shardnode.runtime.point_reads import PointReads, PointStatement
from shardnode.runtime.read_parts import (
    TaggedPart,
    count_rows,
    encode_tagged,
    encoder_of,
    part_of,
)
from shardnode.runtime.rows import RowEncoder
from shardnode.runtime.sqlstates import problem_of_sqlstate
from shardnode.runtime.writes import Writes

logger = logging.getLogger(__name__)

# What a call is answered with: a part of calls.py, a problem, or bytes that are the whole answer:
# the JSON of a write, or all rows of a joined page, separated by commas.
Outcome = calls.PagePart | calls.GroupPart | bytes | calls.Replayed | TaggedPart | Problem
Done = Callable[[Outcome], None]
Cancel = Callable[[], None]
READY_MAX = 4_096
EXACT_ROWS_MAX = 64
ROWS_STEP = 32
# Which statement of a read: behind a position, of named buckets, with its tag, or several of them.
BEHIND, RANGED, TAGGED = 1, 2, 4


class Ownership(Protocol):
    """What this node knows of which buckets are its own."""

    def check(self, bucket: int, epoch: int) -> None:
        """Raise WrongShard or StaleEpoch unless the bucket is ours at this epoch."""

    def check_map(self, epoch: int) -> None:
        """Raise StaleEpoch or WrongShard unless this is the epoch of the map known here."""

    @property
    def stamp(self) -> object:
        """Another object after every change of what is owned."""


class Place(NamedTuple):
    """Where a call believes its rows are: a bucket at its epoch, or the whole map's epoch."""

    bucket: int | None
    epoch: int
    is_local: bool = False  # a direct call: this node itself says where


@dataclass(frozen=True, slots=True)
class _Ready:
    """One statement, ready to be filled and sent."""

    name: bytes
    sql: bytes
    fillers: tuple[Filler, ...]
    encoder: RowEncoder | None
    point: PointStatement | None


class _PointRead(msgspec.Struct, eq=False):
    """One point read under way. A struct: one is made for every such read."""

    executor: Executor
    endpoint: Endpoint[Any, Any]
    place: Place
    stamp: object
    told: Done

    def done(self, outcome: Outcome) -> None:
        """Hand the outcome over if its place is still ours."""
        executor = self.executor
        if outcome.__class__ is bytes and outcome:
            executor.rows[self.endpoint.number][ROWS] += 1
        if executor.ownership.stamp is not self.stamp:
            outcome = executor.judged(self.endpoint, self.place, outcome)
        self.told(outcome)


class Executor:
    """Runs the calls of one worker process."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        ownership: Ownership,
        quick: LanePool,
        slow: LanePool,
        points: PointReads,
        writer: Writes,
        many: ManyWrites,
        shard: str,
        clock: Callable[[], float],
        rows: Sequence[Row] = (),
        label: bytes = b"",
        filtered: Callable[[Mapping[str, str]], Executor] | None = None,
    ) -> None:
        # Ahead of the names of statements, where other executors use the same lanes.
        self._label = label
        # Who runs the calls of callers with a row filter; None: these are all that come here.
        self._filtered = filtered
        # Where rows are counted, by endpoint.
        self.rows = rows or [new_row() for _ in catalog.by_number]
        self._catalog = catalog
        self.ownership = ownership
        self._quick, self._slow, self._writer = quick, slow, writer
        self._points = points
        self.shard = shard
        self._many = many
        self._clock = clock
        self._by_number = catalog.by_number
        self._ready: dict[tuple[int, int, int, int], tuple[ReadPlan, _Ready]] = {}
        self._asides = Asides(catalog=catalog, lanes=slow, shard=shard, label=label)

    def endpoint(self, number: int) -> Endpoint[Any, Any]:
        """Return an endpoint by its number in the bundle."""
        if not 0 <= number < len(self._by_number):
            raise UnknownEndpoint
        return self._by_number[number]

    def run(
        self,
        *,
        endpoint: Endpoint[Any, Any],
        call: calls.Call,
        place: Place,
        joined: bool,
        deadline: float,
        done: Done,
        export: bool = False,
    ) -> Cancel | None:
        """Run a call and hand its outcome to ``done``, once.

        Args:
            endpoint: What is called.
            call: Its parameters as canonical texts.
            place: Where the caller believes the rows are.
            joined: Give the rows of a page as one run of bytes.
            deadline: When the caller stops waiting, by the loop's clock in seconds.
            done: Called in the loop's thread.
            export: It is a part of an export, which must not hold up quick reads.

        Returns:
            How to give the call up, if that can spare work; a write that began is not given up.
        """
        try:
            if call.row_filter is not None and self._filtered is not None:
                return self._filtered(call.row_filter).run(
                    endpoint=endpoint,
                    call=call,
                    place=place,
                    joined=joined,
                    deadline=deadline,
                    done=done,
                    export=export,
                )
            self._check(endpoint, call, place, deadline)
            if endpoint.kind == "mutation":
                self._writer.submit(endpoint, call, place.bucket, place.epoch, deadline, done)
            else:
                return self._read(endpoint, call, place, joined, deadline, done, export)
        except Problem as problem:
            done(problem)
        except Exception:
            logger.exception("call.failed", extra={"endpoint": endpoint.name})
            done(Internal())
        return None

    def run_many(
        self, endpoint: ManyEndpoint, call: calls.ManyCall, deadline: float, done: Done
    ) -> None:
        """Run a batch and hand its outcome to ``done``, once: as a write, it is not given up."""
        try:
            if call.row_filter is not None and self._filtered is not None:
                self._filtered(call.row_filter).run_many(endpoint, call, deadline, done)
                return
            if deadline <= self._clock():
                raise DeadlineExceeded
            for bucket, epoch in zip(call.buckets, call.epochs, strict=False):
                self.ownership.check(bucket, epoch)
            self._many.submit(endpoint, call, deadline, done)
        except Problem as problem:
            done(problem)
        except Exception:
            logger.exception("call.failed", extra={"endpoint": endpoint.name})
            done(Internal())

    def _check(
        self, endpoint: Endpoint[Any, Any], call: calls.Call, place: Place, deadline: float
    ) -> None:
        if deadline <= self._clock():
            raise DeadlineExceeded
        width = len(endpoint.parameters)
        if not 0 <= call.mask < 1 << width or len(call.values) != call.mask.bit_count():
            raise InvalidRequest("the call does not fit the endpoint")
        self._check_place(endpoint, place)

    def _check_place(self, endpoint: Endpoint[Any, Any], place: Place) -> None:
        if place.bucket is not None:
            self.ownership.check(place.bucket, place.epoch)
        elif not place.is_local and not endpoint.model.shard.reference:  # type: ignore[attr-defined]
            self.ownership.check_map(place.epoch)

    def _read(
        self,
        endpoint: Endpoint[Any, Any],
        call: calls.Call,
        place: Place,
        joined: bool,
        deadline: float,
        done: Done,
        export: bool,
    ) -> Cancel | None:
        if call.about:
            judged = self._judging(endpoint, place, done)
            return self._asides.count(endpoint, call, deadline, judged)
        variant = 0 if call.after is None else BEHIND
        if call.buckets:
            variant |= RANGED
        if call.tag is not None:
            variant |= TAGGED
        plan, ready = self._statement(
            endpoint, call.mask, rows=_rows_fetched(call.limit), variant=variant
        )
        stamp = self.ownership.stamp
        if ready.point is not None and joined:
            point = _PointRead(self, endpoint, place, stamp, done)
            self._points.ask(ready.point, call.values, deadline, point.done)
            return None
        params: Sequence[bytes | None] = [fill(call) for fill in ready.fillers]
        if variant & TAGGED:
            params = [*params, (call.tag or "").encode()]
        if call.row_filter is not None:
            params = FilteredParams(params, call.row_filter)
        is_quick = plan.groups is None and plan.route.reach != "scatter" and not export
        pool = self._quick if is_quick else self._slow

        def finish(result: Any, error: LaneError | None) -> None:
            outcome = self._outcome(plan, ready, call, joined, result, error)
            if error is None:
                came = count_rows(call, result)
                more = came if plan.groups else min(came, call.limit)
                self.rows[endpoint.number][ROWS] += more
            if self.ownership.stamp is not stamp:
                outcome = self.judged(endpoint, place, outcome)
            done(outcome)

        def go(lane: Lane) -> Cancel:
            return lane.send(
                name=ready.name, sql=ready.sql, params=params, deadline=deadline, done=finish
            )

        lane = pool.pick()
        if lane is not None:
            return go(lane)
        return pool.wait(deadline, go, lambda: done(pool.refusal(self.shard)))

    def _judging(self, endpoint: Endpoint[Any, Any], place: Place, done: Done) -> Done:
        """Return what hands an outcome on, if its place is still ours by then."""
        stamp = self.ownership.stamp

        def finish(outcome: Outcome) -> None:
            if self.ownership.stamp is not stamp:
                outcome = self.judged(endpoint, place, outcome)
            done(outcome)

        return finish

    def judged(self, endpoint: Endpoint[Any, Any], place: Place, outcome: Outcome) -> Outcome:
        """Return the outcome if its place is still ours.

        The rows were read after the first look: a bucket that left meanwhile may have left
        without some of them.
        """
        try:
            self._check_place(endpoint, place)
        except Problem as moved:
            return moved
        return outcome

    def _outcome(
        self,
        plan: ReadPlan,
        ready: _Ready,
        call: calls.Call,
        joined: bool,
        result: Any,
        error: LaneError | None,
    ) -> Outcome:
        try:
            if error is not None:
                logger.info("read.refused", extra={"sqlstate": error.sqlstate})
                return problem_of_sqlstate(error.sqlstate, is_write=False, shard=self.shard)
            return part_of(plan, ready.encoder, call, joined, result)
        except Exception:
            logger.exception("read.failed")
            return Internal()

    def _statement(
        self, endpoint: Endpoint[Any, Any], mask: int, *, rows: int, variant: int
    ) -> tuple[ReadPlan, _Ready]:
        known = self._ready.get((endpoint.number, mask, rows, variant))
        if known is not None:
            return known
        names = [spec.name for bit, spec in enumerate(endpoint.parameters) if mask >> bit & 1]
        try:
            plan = self._catalog.plan(endpoint, frozenset(names))
        except Problem:
            raise
        except Exception:
            logger.exception("plan.failed", extra={"endpoint": endpoint.name})
            raise DefinitionFault from None
        statement = _statement_of(plan, variant)
        if statement is None:
            raise InvalidRequest("this endpoint has no pages")
        sql, slots = statement.sql, statement.slots
        if slots and slots[-1] == LIMIT_SLOT:
            # As a parameter the limit would be unknown to the plan, which then expects a tenth of
            # the table and walks the order's index instead of looking rows up and sorting them.
            sql, slots = f"{sql.rpartition(' LIMIT ')[0]} LIMIT {rows}", slots[:-1]
        if variant & TAGGED:
            sql = tagged_sql(sql, len(slots) + 1)
        ready = _Ready(
            name=b"%be%d_%x_%d_%d" % (self._label, endpoint.number, mask, rows, variant),
            sql=sql.encode(),
            fillers=tuple(filler_of(slot, names) for slot in slots),
            encoder=encoder_of(statement, is_tagged=bool(variant & TAGGED)),
            point=None if variant else _point_of(endpoint, mask, plan, names),
        )
        if len(self._ready) >= READY_MAX:
            del self._ready[next(iter(self._ready))]
        self._ready[endpoint.number, mask, rows, variant] = plan, ready
        return plan, ready


def _statement_of(plan: ReadPlan, variant: int) -> Statement | GroupStatement | None:
    if variant & RANGED:
        return plan.ranged(bool(variant & BEHIND)) if plan.ranged is not None else None
    return plan.groups or (plan.after if variant & BEHIND else plan.first)


def _point_of(
    endpoint: Endpoint[Any, Any], mask: int, plan: ReadPlan, names: list[str]
) -> PointStatement | None:
    if plan.point is None:
        return None
    return PointStatement(
        name=b"p%d_%x" % (endpoint.number, mask),
        sql=plan.point.sql.encode(),
        places=tuple(names.index(slot) for slot in plan.point.slots),
    )


def _rows_fetched(limit: int) -> int:
    """Return how many rows to fetch for a page: one more than asked for tells if there are more.

    Large ones in steps, so that callers' limits make few statements.
    """
    rows = limit + 1
    return rows if rows <= EXACT_ROWS_MAX else -(-rows // ROWS_STEP) * ROWS_STEP


def encode_outcome(outcome: Outcome, *, joined: bool = False) -> tuple[int, bytes]:
    """Return an outcome as the status and body of a stream's answer record."""
    if outcome.__class__ is bytes:
        return calls.WHOLE, outcome
    if isinstance(outcome, Problem):
        return outcome.status, msgspec.msgpack.encode(outcome.to_wire())
    if isinstance(outcome, calls.Replayed):
        return calls.REPLAYED, outcome.body
    if isinstance(outcome, TaggedPart):
        if outcome.part is None:
            return encode_tagged(outcome, calls.UNCHANGED, b"")
        return encode_tagged(outcome, *encode_outcome(outcome.part, joined=joined))
    status = calls.MORE if joined and isinstance(outcome, calls.PagePart) else calls.WHOLE
    return status, calls.encode(outcome)
