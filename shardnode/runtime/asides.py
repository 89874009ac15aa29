"""What is asked about a read rather than by it: how many rows it has in all.

Counted, or counted up to a bound and beyond it taken from the planner: its word costs one plan,
whatever the number of rows. Runs where slow reads run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from modeldefs.kit.catalog import Catalog
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.statements import CountStatement
from modeldefs.wire import calls
from modeldefs.wire.problems import DefinitionFault, Internal, InvalidRequest, Problem
from shardnode.runtime.fillers import Filler, filler_of
from shardnode.runtime.filtered_lanes import FilteredParams
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lane_statements import LaneError
from shardnode.runtime.lanes import Lane
from shardnode.runtime.sqlstates import problem_of_sqlstate

logger = logging.getLogger(__name__)

ESTIMATED_FROM = 10_000  # as many rows a shard counts before it asks the planner
READY_MAX = 1_024

Done = Callable[[calls.GroupPart | Problem], None]
Cancel = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Ready:
    """The statements of one endpoint with one set of parameters."""

    name: bytes
    counting: CountStatement
    fillers: tuple[Filler, ...]


class Asides:
    """Answers them for one worker process. Use from the loop's thread only."""

    def __init__(
        self, *, catalog: Catalog, lanes: LanePool, shard: str, label: bytes = b""
    ) -> None:
        self._label = label  # ahead of statements' names, where others use the same lanes
        self._catalog, self._lanes, self._shard = catalog, lanes, shard
        self._ready: dict[tuple[int, int], _Ready] = {}

    def count(
        self, endpoint: Endpoint[Any, Any], call: calls.Call, deadline: float, done: Done
    ) -> Cancel | None:
        """Count the rows; ``done`` is called once.

        Raises:
            InvalidRequest: The endpoint has no pages, or the call asks for something else.
        """
        if call.about not in (calls.COUNT, calls.ESTIMATE):
            raise InvalidRequest("the call asks for what this node does not know")
        ready = self._statements(endpoint, call.mask)
        params: Sequence[bytes | None] = [fill(call) for fill in ready.fillers]
        if call.row_filter is not None:
            params = FilteredParams(params, call.row_filter)
        counting, name = ready.counting, ready.name
        if call.about == calls.COUNT:
            return self._ask(
                b"c" + name, counting.exact, params, deadline, self._guarded(done, _part)
            )

        def counted(result: Any) -> None:
            part = _part(result)
            if part.rows[0][0] <= ESTIMATED_FROM:
                done(part)
                return
            guess = self._guarded(done, _guess)
            self._ask(b"g" + name, counting.explained, params, deadline, guess)

        return self._ask(
            b"b" + name,
            counting.up_to(ESTIMATED_FROM),
            params,
            deadline,
            partial(self._on_result, done, counted),
        )

    def _statements(self, endpoint: Endpoint[Any, Any], mask: int) -> _Ready:
        known = self._ready.get((endpoint.number, mask))
        if known is not None:
            return known
        names = [spec.name for bit, spec in enumerate(endpoint.parameters) if mask >> bit & 1]
        try:
            counted = self._catalog.plan(endpoint, frozenset(names)).counted
            counting = counted() if counted is not None else None
        except Problem:
            raise
        except Exception:
            logger.exception("plan.failed", extra={"endpoint": endpoint.name})
            raise DefinitionFault from None
        if counting is None:
            raise InvalidRequest("this endpoint has no pages")
        fillers = tuple(filler_of(slot, names) for slot in counting.slots)
        if len(self._ready) >= READY_MAX:
            del self._ready[next(iter(self._ready))]
        name = b"%d_%x" % (endpoint.number, mask)
        found = self._ready[endpoint.number, mask] = _Ready(name, counting, fillers)
        return found

    def _ask(
        self,
        name: bytes,
        sql: str,
        params: Sequence[bytes | None],
        deadline: float,
        done: Callable[[Any, LaneError | None], None],
    ) -> Cancel | None:
        def go(lane: Lane) -> Cancel:
            return lane.send(
                name=self._label + name,
                sql=sql.encode(),
                params=params,
                deadline=deadline,
                done=done,
            )

        def refuse() -> None:
            done(None, LaneError("", "no room", was_sent=False))

        lane = self._lanes.pick()
        return go(lane) if lane is not None else self._lanes.wait(deadline, go, refuse)

    def _guarded(
        self, done: Done, read: Callable[[Any], calls.GroupPart]
    ) -> Callable[[Any, LaneError | None], None]:
        return partial(self._on_result, done, lambda result: done(read(result)))

    def _on_result(
        self, done: Done, go_on: Callable[[Any], None], result: Any, error: LaneError | None
    ) -> None:
        if error is not None:
            done(self._problem(error))
            return
        try:
            go_on(result)
        except Exception:
            logger.exception("count.failed")
            done(Internal())

    def _problem(self, error: LaneError) -> Problem:
        if not error.sqlstate:
            return self._lanes.refusal(self._shard)
        logger.info("read.refused", extra={"sqlstate": error.sqlstate})
        return problem_of_sqlstate(error.sqlstate, is_write=False, shard=self._shard)


def _part(result: Any) -> calls.GroupPart:
    return calls.GroupPart([[int(result.get_value(0, 0)), 0]])


def _guess(result: Any) -> calls.GroupPart:
    """Return the planner's number of rows; it knows by then that there are more than counted."""
    (explained,) = json.loads(result.get_value(0, 0))
    rows = int(explained["Plan"]["Plan Rows"])
    return calls.GroupPart([[max(rows, ESTIMATED_FROM + 1), 1]])
