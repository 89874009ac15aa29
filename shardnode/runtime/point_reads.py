"""Gathers the point reads of one loop tick: equal ones become one statement.

Each gets the row of its own parameters or none; the same parameters are asked for once. When a
statement fails its reads are run again one by one, so that each fails for its own reason only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from modeldefs.wire.problems import Problem
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lanes import Lane, LaneError
from shardnode.runtime.rows import array_literal
from shardnode.runtime.sqlstates import problem_of_sqlstate

logger = logging.getLogger(__name__)

TOGETHER_MAX = 64
GATHER_ROUNDS_MAX = 4
# Generic plans that walk from each element to its row by an index, whatever the statistics of the
# moment say: the statement is planned once and used for as long as the connection lives.
SESSION = (
    b"SET plan_cache_mode = force_generic_plan",
    b"SET enable_seqscan = off",
    b"SET enable_hashjoin = off",
    b"SET enable_mergejoin = off",
)

# Takes the JSON of the row, empty when there is none, or a problem.
Done = Callable[[bytes | Problem], None]


@dataclass(frozen=True, slots=True, eq=False)
class PointStatement:
    """One endpoint's point read with one set of parameters, ready to be sent."""

    name: bytes
    sql: bytes
    places: tuple[int, ...]  # of each parameter of the statement among the call's values


class _Group:
    """Reads that leave together. Those with equal parameters share a place."""

    __slots__ = ("deadline", "places", "waiting")

    def __init__(self) -> None:
        self.places: dict[tuple[str, ...], int] = {}
        self.waiting: list[tuple[int, Done]] = []
        self.deadline = 0.0


class PointReads:
    """The point reads of one worker process. Use from the loop's thread only."""

    def __init__(self, lanes: LanePool, *, shard: str) -> None:
        self._lanes = lanes
        self._shard = shard
        self._loop = asyncio.get_running_loop()
        self._groups: dict[PointStatement, _Group] = {}
        self._asked = self._gathered = self._rounds = 0

    def ask(
        self, statement: PointStatement, values: list[Any], deadline: float, done: Done
    ) -> None:
        """Read one row; ``done`` is called once, in the loop's thread."""
        group = self._groups.get(statement)
        if group is None:
            if not self._groups:
                self._gathered = self._rounds = 0
                self._loop.call_soon(self._gather)
            group = self._groups[statement] = _Group()
        key = tuple([values[place] for place in statement.places])
        places = group.places
        place = places.setdefault(key, len(places))
        group.waiting.append((place, done))
        self._asked += 1
        if deadline > group.deadline:
            group.deadline = deadline
        if len(places) >= TOGETHER_MAX:
            del self._groups[statement]
            self._send(statement, group)

    def _gather(self) -> None:
        """Send the statements, or look once more for reads that would leave with them.

        As on the streams: at once when nothing is under way, else as long as more keep coming.
        """
        if (
            self._asked > self._gathered
            and self._rounds < GATHER_ROUNDS_MAX
            and self._lanes.in_flight
        ):
            self._gathered = self._asked
            self._rounds += 1
            self._loop.call_soon(self._gather)
        else:
            self._depart()

    def _depart(self) -> None:
        self._asked = 0
        groups, self._groups = self._groups, {}
        for statement, group in groups.items():
            self._send(statement, group)

    def _send(self, statement: PointStatement, group: _Group) -> None:
        lane = self._lanes.pick()
        if lane is not None:
            self._board(statement, group, lane)
            return

        def refuse() -> None:
            refusal = self._lanes.refusal(self._shard)
            for _, done in group.waiting:
                _tell(done, refusal)

        self._lanes.wait(group.deadline, partial(self._board, statement, group), refuse)

    def _board(self, statement: PointStatement, group: _Group, lane: Lane) -> None:
        def finish(result: Any, error: LaneError | None) -> None:
            if error is None:
                self._answer(group, result)
            elif len(group.places) > 1 and error.was_sent:
                self._one_by_one(statement, group)
            else:
                self._refuse(group, error)

        self._lanes.count_reads(len(group.waiting))
        lane.send(
            name=statement.name,
            sql=statement.sql,
            params=[array_literal(column) for column in zip(*group.places, strict=True)],
            deadline=group.deadline,
            done=finish,
        )
        lane.depart()

    def _answer(self, group: _Group, result: Any) -> None:
        rows = [b""] * len(group.places)
        value_at = result.get_value
        for n in range(result.ntuples):
            rows[int(value_at(n, 0)) - 1] = value_at(n, 1)
        for place, done in group.waiting:
            _tell(done, rows[place])

    def _one_by_one(self, statement: PointStatement, group: _Group) -> None:
        keys = list(group.places)
        alone: dict[int, _Group] = {}
        for place, done in group.waiting:
            single = alone.get(place)
            if single is None:
                single = alone[place] = _Group()
                single.places[keys[place]] = 0
                single.deadline = group.deadline
            single.waiting.append((0, done))
        for single in alone.values():
            self._send(statement, single)

    def _refuse(self, group: _Group, error: LaneError) -> None:
        logger.info("read.refused", extra={"sqlstate": error.sqlstate})
        for _, done in group.waiting:
            _tell(done, problem_of_sqlstate(error.sqlstate, is_write=False, shard=self._shard))


def _tell(done: Done, outcome: bytes | Problem) -> None:
    try:
        done(outcome)
    except Exception:  # one broken callback must not cost the others their rows
        logger.exception("read.callback-failed")
