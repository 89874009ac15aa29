"""Calls of callers with a row filter, on this shard: lanes and statements of their own.

They run by the same code as all others, on plans that were compiled with the filter and through
logins that row level security holds. What serves them is made when the first of them comes, so a
cluster without row filters pays nothing; there is one executor for each set of filter fields, of
which the definitions allow few.

Invariant: a call with a row filter never reaches a lane of the unfiltered logins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from modeldefs.kit.catalog import Catalog
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.row_filters import Fields, declared_fields, may_filter
from modeldefs.kit.snapshots import LIFE
from modeldefs.kit.write_plans import WritePlan
from modeldefs.wire.meters import Row
from modeldefs.wire.problems import Forbidden, ShardBehind
from shardnode.runtime.executor import Executor, Ownership
from shardnode.runtime.filtered_lanes import filtered_lane
from shardnode.runtime.filtered_writer import FilteredWriter
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lane_statements import LaneLimits
from shardnode.runtime.many_writes import ManyWrites
from shardnode.runtime.point_reads import PointReads
from shardnode.runtime.write_runs import WRITE_SESSION
from shardnode.runtime.writes import Writes

logger = logging.getLogger(__name__)

READ_LANES = 2
WRITE_LANES = 1
SLOW_LANES = 1


class FilteredCatalog(Catalog):
    """A catalog whose plans are those for a row filter on these fields."""

    @classmethod
    def of(cls, catalog: Catalog, fields: Fields) -> FilteredCatalog:
        """Return a view of a catalog; its plans are kept by the catalog itself."""
        own = cls(catalog.packages, catalog.models, catalog.endpoints, catalog.bundle_id)
        own.whole, own.fields = catalog, fields
        return own

    whole: Catalog
    fields: Fields

    def plan(self, endpoint: Endpoint[Any, Any], presence: frozenset[str]) -> ReadPlan:
        """Return the plan of a read.

        Raises:
            Forbidden: It reads what cannot be filtered so.
        """
        takes = self.whole.plan(endpoint, presence).takes
        if takes is not None and not takes.issuperset(self.fields):
            raise Forbidden(f"{endpoint.name} cannot filter by {', '.join(self.fields)}")
        # Point reads of several callers become one statement, whose filter could be one's only.
        return replace(self.whole.filtered_plan(endpoint, presence, self.fields), point=None)

    def write_plan(
        self, endpoint: Endpoint[Any, Any], presence: frozenset[str]
    ) -> WritePlan | str:
        """Return the plan of a mutation.

        Raises:
            Forbidden: It writes a model that cannot be filtered so.
        """
        if not may_filter(endpoint.model, self.fields):
            raise Forbidden(f"{endpoint.name} cannot filter by {', '.join(self.fields)}")
        return self.whole.filtered_write(endpoint, presence, self.fields)


class FilteredRuns:
    """The executors of one worker process for callers with row filters."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        ownership: Ownership,
        frw_dsn: str,
        fro_dsn: str,
        shard: str,
        clock: Callable[[], float],
        rows: Sequence[Row] = (),
        limits: LaneLimits | None = None,
    ) -> None:
        self._catalog, self._ownership = catalog, ownership
        self._frw_dsn, self._fro_dsn = frw_dsn, fro_dsn
        self._shard, self._clock, self._rows = shard, clock, rows
        self._limits = limits or LaneLimits()
        self._declared = sorted(declared_fields(catalog.models.values()))
        self._by_fields: dict[Fields, Executor] = {}
        self._pools: list[LanePool] = []
        self._unopened: list[LanePool] = []
        self._writer: FilteredWriter | None = None
        self._opening: asyncio.Task[None] | None = None

    def executor(self, row_filter: Mapping[str, str]) -> Executor:
        """Return who runs the calls with a filter on these fields.

        Raises:
            Forbidden: No model filters by them.
            ShardBehind: This shard lacks the logins for them.
        """
        fields = tuple(sorted(row_filter))
        known = self._by_fields.get(fields)
        if known is None:
            if not fields or not set(fields) <= set(self._declared):
                raise Forbidden(f"no model filters its rows by {', '.join(fields) or 'nothing'}")
            if not self._frw_dsn or not self._fro_dsn:
                raise ShardBehind("this shard was provisioned before row filters")
            known = self._by_fields[fields] = self._make(fields)
        self._open()
        return known

    def _make(self, fields: Fields) -> Executor:
        if not self._pools:
            self._make_pools()
        reading, slow, writing, batching = self._pools
        assert self._writer is not None
        catalog = FilteredCatalog.of(self._catalog, fields)
        label = b"f%d_" % len(self._by_fields)
        return Executor(
            catalog=catalog,
            ownership=self._ownership,
            quick=reading,
            slow=slow,
            points=PointReads(reading, shard=self._shard),
            writer=Writes(
                catalog=catalog,
                lanes=writing,
                writer=self._writer,
                shard=self._shard,
                clock=self._clock,
                label=label,
            ),
            many=ManyWrites(
                catalog=catalog,
                lanes=batching,
                shard=self._shard,
                clock=self._clock,
                label=label,
            ),
            shard=self._shard,
            clock=self._clock,
            rows=self._rows,
            label=label,
        )

    def _make_pools(self) -> None:
        lane = filtered_lane(self._declared)
        alone = replace(self._limits, batch_max=1)

        def writing(size: int, limits: LaneLimits) -> LanePool:
            return LanePool(
                self._frw_dsn, size, limits, commits=True, session=WRITE_SESSION, lane=lane
            )

        self._pools = [
            LanePool(self._fro_dsn, READ_LANES, self._limits, session=(LIFE,), lane=lane),
            LanePool(self._fro_dsn, SLOW_LANES, alone, session=(LIFE,), lane=lane),
            writing(WRITE_LANES, self._limits),
            writing(SLOW_LANES, alone),
        ]
        self._unopened = list(self._pools)
        self._writer = FilteredWriter(
            dsn=self._frw_dsn, catalog=self._catalog, shard=self._shard, clock=self._clock
        )

    # -- lanes -----------------------------------------------------------------------------------

    def _open(self) -> None:
        """Connect the lanes if they are not; who comes meanwhile waits for room on one."""
        if self._unopened and self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        for pool in tuple(self._unopened):
            try:
                await pool.open()
            except ConnectionError as fault:
                logger.warning("filtered.not-connected", extra={"reason": str(fault)})
            else:
                self._unopened.remove(pool)
        self._opening = None

    async def close(self) -> None:
        """Wait for what runs and close lanes and threads."""
        if self._opening is not None:
            await self._opening
        if self._writer is not None:
            await self._writer.close()
        for pool in self._pools:
            await pool.close()
