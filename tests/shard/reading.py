"""Reads on a shard of a test's own, the way a node's worker runs them: lanes, one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvloop

from modeldefs.kit.catalog import Catalog
from modeldefs.kit.snapshots import LIFE
from modeldefs.wire import calls
from shardnode.runtime.executor import Executor, Place
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.many_writes import ManyWrites
from shardnode.runtime.point_reads import SESSION, PointReads
from shardnode.runtime.writes import Writes
from tests.shard.writing import LIMITS, PATIENCE_S

HERE = Place(None, 0, is_local=True)


class AllOwned:
    """A node that owns every bucket, always."""

    stamp: object = None

    def check(self, bucket: int, epoch: int) -> None:
        """Take it."""

    def check_map(self, epoch: int) -> None:
        """Take it."""


class ReadingNode:
    """A worker's reads; its methods run the loop until what was asked is answered."""

    def __init__(self, dsn: str, catalog: Catalog) -> None:
        self.catalog = catalog
        self.loop = uvloop.new_event_loop()
        self._pools: list[LanePool] = []
        self._executor: Executor = self.run(self._open(dsn))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the node's loop."""
        return self.loop.run_until_complete(asyncio.wait_for(work, PATIENCE_S))

    async def _open(self, dsn: str) -> Executor:
        lanes = LanePool(dsn, 1, LIMITS, session=(LIFE,))
        points = LanePool(dsn, 1, LIMITS, session=SESSION)
        self._pools = [lanes, points]
        for pool in self._pools:
            await pool.open()
        return Executor(
            catalog=self.catalog,
            ownership=AllOwned(),
            quick=lanes,
            slow=lanes,
            points=PointReads(points, shard="s1"),
            writer=cast(Writes, None),
            many=cast(ManyWrites, None),
            shard="s1",
            clock=asyncio.get_running_loop().time,
        )

    def begin(
        self, name: str, *, joined: bool = True, limit: int = 50, **options: Any
    ) -> asyncio.Future[Any]:
        """Send a read; the future brings what the node answers."""
        endpoint = self.catalog.endpoints[name]
        given: dict[str, Any] = options.get("given", {})
        mask = sum(1 << bit for bit, spec in enumerate(endpoint.parameters) if spec.name in given)
        values = [given[spec.name] for spec in endpoint.parameters if spec.name in given]
        call = calls.Call(mask, values, limit, options.get("after"), tag=options.get("tag"))
        answered: asyncio.Future[Any] = self.loop.create_future()
        self._executor.run(
            endpoint=endpoint,
            call=call,
            place=HERE,
            joined=joined,
            deadline=self.loop.time() + PATIENCE_S,
            done=answered.set_result,
        )
        return answered

    def read(self, name: str, **options: Any) -> Any:
        """Send one read and return its answer."""

        async def send() -> Any:
            return await self.begin(name, **options)

        return self.run(send())

    def together(self, *asked: tuple[str, dict[str, Any]]) -> list[Any]:
        """Send reads in one tick of the loop and return their answers."""

        async def send() -> list[Any]:
            return await asyncio.gather(*[self.begin(name, **more) for name, more in asked])

        found: list[Any] = self.run(send())
        return found

    def close(self) -> None:
        """Close lanes and loop."""
        for pool in self._pools:
            self.run(pool.close())
        self.loop.close()


@contextmanager
def reading_node(dsn: str, catalog: Catalog) -> Iterator[ReadingNode]:
    """Run the reads of a catalog on a shard."""
    node = ReadingNode(dsn, catalog)
    try:
        yield node
    finally:
        node.close()
