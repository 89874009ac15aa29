"""Writes on a shard of a test's own, the way a node's worker runs them: lanes, one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import uvloop

from modeldefs.kit.buckets import bucket_of
from modeldefs.kit.catalog import Catalog, shard_key_parameter
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.many import ManyEndpoint
from modeldefs.wire import calls
from modeldefs.wire.problems import Problem
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lanes import LaneLimits
from shardnode.runtime.many_writes import ManyWrites
from shardnode.runtime.mutations import Writer
from shardnode.runtime.write_runs import WRITE_SESSION
from shardnode.runtime.writes import Writes
from tests.shard.served import ServedShard

PATIENCE_S = 20.0
LIMITS = LaneLimits(
    reconnect_first_s=0.01, reconnect_max_s=0.05, cancel_grace_s=0.01, watch_s=0.01
)


def catalog_of(endpoints: Sequence[Endpoint[Any, Any]], models: Sequence[Any]) -> Catalog:
    """Return a catalog of just these."""
    for number, endpoint in enumerate(endpoints):
        endpoint.resolve()
        endpoint.number = number
    return Catalog(
        ("tests",),
        {model.__name__: model for model in models},
        {endpoint.name: endpoint for endpoint in endpoints},
        "bundle",
    )


class WritingNode:
    """A worker's writes; its methods run the loop until what was asked is answered."""

    def __init__(self, shard: ServedShard, catalog: Catalog, lanes: int = 2) -> None:
        self.shard = shard
        self.catalog = catalog
        self.loop = uvloop.new_event_loop()
        self.writes: Writes = self.run(self._open(lanes))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the node's loop."""
        return self.loop.run_until_complete(asyncio.wait_for(work, PATIENCE_S))

    async def _open(self, lanes: int) -> Writes:
        pool = LanePool(self.shard.rw_dsn, lanes, LIMITS, commits=True, session=WRITE_SESSION)
        clock = asyncio.get_running_loop().time
        writes = Writes(
            catalog=self.catalog,
            lanes=pool,
            writer=Writer(shard="s1", clock=clock),
            shard="s1",
            clock=clock,
        )
        await writes.open()
        many_pool = LanePool(
            self.shard.rw_dsn, lanes, replace(LIMITS, batch_max=1), commits=True,
            session=WRITE_SESSION,
        )  # fmt: skip
        self.many = ManyWrites(catalog=self.catalog, lanes=many_pool, shard="s1", clock=clock)
        await self.many.open()
        return writes

    def begin(self, name: str, **options: Any) -> asyncio.Future[Any]:
        """Send a write; the future brings what the node answers."""
        endpoint = self.catalog.endpoints[name]
        call, bucket = call_of(endpoint, **options)
        answered: asyncio.Future[Any] = self.loop.create_future()
        deadline = self.loop.time() + options.get("deadline_s", PATIENCE_S)
        try:
            self.writes.submit(
                endpoint, call, bucket, options.get("epoch", 0), deadline, answered.set_result
            )
        except Problem as problem:
            answered.set_result(problem)
        return answered

    def begin_many(
        self, name: str, items: Sequence[dict[str, Any]], **options: Any
    ) -> asyncio.Future[Any]:
        """Send a batch; the future brings what the node answers."""
        endpoint = self.catalog.endpoints[name]
        assert isinstance(endpoint, ManyEndpoint)
        answered: asyncio.Future[Any] = self.loop.create_future()
        deadline = self.loop.time() + options.get("deadline_s", PATIENCE_S)
        try:
            call = many_call_of(endpoint, items, **options)
            self.many.submit(endpoint, call, deadline, answered.set_result)
        except Problem as problem:
            answered.set_result(problem)
        return answered

    def do_many(self, name: str, items: Sequence[dict[str, Any]], **options: Any) -> Any:
        """Send one batch and return its answer."""
        return self.together(lambda: self.begin_many(name, items, **options))[0]

    def together(self, *asked: Callable[[], asyncio.Future[Any]]) -> list[Any]:
        """Send writes in one tick of the loop and return their answers."""

        async def send() -> list[Any]:
            return await asyncio.gather(*[begin() for begin in asked])

        found: list[Any] = self.run(send())
        return found

    def do(self, name: str, **options: Any) -> Any:
        """Send one write and return its answer."""
        return self.together(lambda: self.begin(name, **options))[0]

    def sql(self, text: str, *params: Any) -> list[Any]:
        """Run a statement as the node's own login, outside of any lane."""
        with psycopg.connect(self.shard.rw_dsn, autocommit=True) as connection:
            cursor = connection.execute(text, params)
            return list(cursor.fetchall()) if cursor.description else []

    @contextmanager
    def leaving(self, bucket: int) -> Iterator[None]:
        """Have a bucket on its way to another shard."""
        state = f"UPDATE {self.shard.schema}.sp_bucket SET state = %s WHERE bucket = %s"
        with psycopg.connect(self.shard.admin_dsn, autocommit=True) as admin:
            admin.execute(state, ("leaving", bucket))
            try:
                yield
            finally:
                admin.execute(state, ("owned", bucket))

    def close(self) -> None:
        """Close lanes and loop."""
        self.run(self.writes.close())
        self.run(self.many.close())
        self.loop.close()


@contextmanager
def writing_node(shard: ServedShard, catalog: Catalog) -> Iterator[WritingNode]:
    """Run the writes of a catalog on a shard."""
    node = WritingNode(shard, catalog)
    try:
        yield node
    finally:
        node.close()


def call_of(endpoint: Endpoint[Any, Any], **options: Any) -> tuple[calls.Call, int]:
    """Return a call with these parameters, and the bucket of its shard key."""
    given: dict[str, Any] = options.get("given", {})
    mask, values = 0, []
    for bit, spec in enumerate(endpoint.parameters):
        # As a request's reader does: an absent parameter with a default is its default.
        if spec.name in given or spec.default is not None:
            mask |= 1 << bit
            values.append(given.get(spec.name, spec.default))
    bucket = bucket_of(given[shard_key_parameter(endpoint)])
    call = calls.Call(
        mask,
        values,
        principal=options.get("principal", "k1"),
        idempotency_key=options.get("key", ""),
        fingerprint=options.get("fingerprint", b"f"),
        hop=options.get("hop", False),
        condition=options.get("condition"),
        rollback=options.get("rollback", False),
    )
    return call, options.get("bucket", bucket)


def many_call_of(
    endpoint: ManyEndpoint, items: Sequence[dict[str, Any]], **options: Any
) -> calls.ManyCall:
    """Return a batch of these items, at epoch 0."""
    columns = [
        [item.get(spec.name, spec.default) for item in items] for spec in endpoint.parameters
    ]
    buckets = sorted({int(bucket_of(item[shard_key_parameter(endpoint)])) for item in items})
    return calls.ManyCall(
        columns,
        options.get("buckets", buckets),
        [options.get("epoch", 0)] * len(buckets),
        principal=options.get("principal", "k1"),
        idempotency_key=options.get("key", ""),
        fingerprint=options.get("fingerprint", b"f"),
        hop=options.get("hop", False),
    )


def keys(node: WritingNode) -> int:
    """Return how many keys are remembered."""
    return int(node.sql("SELECT count(*) FROM sp_idempotency")[0][0])


def code(answer: Any) -> str:
    """Return the code of a problem; fail if it is none."""
    assert isinstance(answer, Problem), answer

    return answer.code
