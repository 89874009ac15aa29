"""A worker that serves the tenants' definitions from a shard, for callers with and without filter.

It asks as the dispatcher does: a checked call in, one outcome back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import uvloop

from modeldefs.kit.buckets import bucket_of
from modeldefs.kit.catalog import Catalog, load_catalog, shard_key_parameter
from modeldefs.kit.many import ManyEndpoint
from modeldefs.wire import calls
from modeldefs.wire.problems import Problem
from shardnode.runtime.executor import Executor, Place
from shardnode.runtime.filtered import FilteredRuns
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lanes import LaneLimits
from shardnode.runtime.many_writes import ManyWrites
from shardnode.runtime.mutations import Writer
from shardnode.runtime.point_reads import PointReads
from shardnode.runtime.write_runs import WRITE_SESSION
from shardnode.runtime.writes import Writes
from tests.shard.served import ServedShard

PATIENCE_S = 30.0
LIMITS = LaneLimits(wait_s=PATIENCE_S, watch_s=0.01, waiting_max=20_000)


class OwnsAll:
    """A node that owns every bucket at epoch 0."""

    stamp: object = "same"

    def check(self, bucket: int, epoch: int) -> None:
        """Say yes."""

    def check_map(self, epoch: int) -> None:
        """Say yes."""


def tenants_catalog() -> Catalog:
    """Return the tenants' definitions as a catalog, checked as a node would."""
    return load_catalog(["tests.definitions_tenants"])


class TenantNode:
    """A worker; its methods run the loop until what was asked is answered."""

    def __init__(self, shard: ServedShard, catalog: Catalog) -> None:
        self.shard, self.catalog = shard, catalog
        self.loop = uvloop.new_event_loop()
        self.run(self._open())

    def run(self, work: Any) -> Any:
        """Run a coroutine on the node's loop."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 4 * PATIENCE_S))

    async def _open(self) -> None:
        clock = self.loop.time
        self.reading = LanePool(self.shard.ro_dsn, 1, LIMITS)
        writing = LanePool(self.shard.rw_dsn, 1, LIMITS, commits=True, session=WRITE_SESSION)
        alone = replace(LIMITS, batch_max=1)
        many = LanePool(self.shard.rw_dsn, 1, alone, commits=True, session=WRITE_SESSION)
        self.writes = Writes(
            catalog=self.catalog,
            lanes=writing,
            writer=Writer(shard="s1", clock=clock, threads=1),
            shard="s1",
            clock=clock,
        )
        self.many = ManyWrites(catalog=self.catalog, lanes=many, shard="s1", clock=clock)
        self.filtered = FilteredRuns(
            catalog=self.catalog,
            ownership=OwnsAll(),
            frw_dsn=self.shard.frw_dsn,
            fro_dsn=self.shard.fro_dsn,
            shard="s1",
            clock=clock,
            limits=LIMITS,
        )
        self.executor = Executor(
            catalog=self.catalog,
            ownership=OwnsAll(),
            quick=self.reading,
            slow=self.reading,
            points=PointReads(self.reading, shard="s1"),
            writer=self.writes,
            many=self.many,
            shard="s1",
            clock=clock,
            filtered=self.filtered.executor,
        )
        await self.reading.open()
        await self.writes.open()
        await self.many.open()

    def begin(
        self, name: str, row_filter: Mapping[str, str] | None, /, **given: Any
    ) -> asyncio.Future[Any]:
        """Call an endpoint; the future brings what the node answers."""
        endpoint = self.catalog.endpoints[name]
        answered: asyncio.Future[Any] = self.loop.create_future()
        names = [spec.name for spec in endpoint.parameters]
        mask = sum(1 << bit for bit, each in enumerate(names) if each in given)
        key, about = given.pop("key", ""), given.pop("about", "")
        call = calls.Call(
            mask,
            [given[each] for each in names if each in given],
            1 if endpoint.shape == "single" else 100,
            principal="k1",
            idempotency_key=key,
            row_filter=None if row_filter is None else dict(row_filter),
            about=about,
        )
        bucket = None
        if endpoint.kind == "mutation":
            bucket = int(bucket_of(given[shard_key_parameter(endpoint)]))
        self.executor.run(
            endpoint=endpoint,
            call=call,
            place=Place(bucket, 0),
            joined=True,
            deadline=self.loop.time() + PATIENCE_S,
            done=answered.set_result,
        )
        return answered

    def begin_many(
        self, name: str, row_filter: Mapping[str, str] | None, items: Sequence[Mapping[str, str]]
    ) -> asyncio.Future[Any]:
        """Call a batch; the future brings what the node answers."""
        endpoint = self.catalog.endpoints[name]
        assert isinstance(endpoint, ManyEndpoint)
        answered: asyncio.Future[Any] = self.loop.create_future()
        buckets = sorted({int(bucket_of(item[shard_key_parameter(endpoint)])) for item in items})
        call = calls.ManyCall(
            [[item.get(spec.name) for item in items] for spec in endpoint.parameters],
            buckets,
            [0] * len(buckets),
            principal="k1",
            row_filter=None if row_filter is None else dict(row_filter),
        )
        deadline = self.loop.time() + PATIENCE_S
        self.executor.run_many(endpoint, call, deadline, answered.set_result)
        return answered

    def together(self, *asked: Callable[[], asyncio.Future[Any]]) -> list[Any]:
        """Call in one tick of the loop and return the answers."""

        async def send() -> list[Any]:
            return await asyncio.gather(*[begin() for begin in asked])

        found: list[Any] = self.run(send())
        return found

    def ask(self, name: str, row_filter: Mapping[str, str] | None, /, **given: Any) -> Any:
        """Call an endpoint and return its answer, a problem as its code."""
        (answer,) = self.together(lambda: self.begin(name, row_filter, **given))
        return answer.code if isinstance(answer, Problem) else answer

    def ask_many(
        self, name: str, row_filter: Mapping[str, str] | None, *items: Mapping[str, str]
    ) -> Any:
        """Call a batch and return its answer, a problem as its code."""
        (answer,) = self.together(lambda: self.begin_many(name, row_filter, items))
        return answer.code if isinstance(answer, Problem) else answer

    def admin(self, text: str, *params: Any) -> list[Any]:
        """Run a statement as a superuser, who sees every row."""
        with psycopg.connect(self.shard.admin_dsn, autocommit=True) as admin:
            admin.execute(f"SET search_path = {self.shard.schema}")
            admin.execute("SET sp.load = 'on'")
            cursor = admin.execute(text, params)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """Close lanes and loop."""
        self.run(self.filtered.close())
        self.run(self.writes.close())
        self.run(self.many.close())
        self.run(self.reading.close())
        self.loop.close()


@contextmanager
def tenant_node(shard: ServedShard, catalog: Catalog) -> Iterator[TenantNode]:
    """Serve the tenants' definitions from a shard."""
    node = TenantNode(shard, catalog)
    try:
        yield node
    finally:
        node.close()
