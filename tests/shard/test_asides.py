"""How many rows a read has: counted by Postgres, or beyond a bound its planner's word."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import uvloop
from django.db import models

from modeldefs import Document, Page, query
from modeldefs.kit.catalog import Catalog
from modeldefs.wire import calls
from modeldefs.wire.problems import InvalidRequest
from shardnode.runtime.asides import ESTIMATED_FROM, Asides
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lanes import LaneLimits
from tests.shard.served import ServedShard
from tests.shard.writing import catalog_of

PATIENCE_S = 20.0
FEW, MANY = 20, ESTIMATED_FROM + 5_000


class Grain(Document):
    """One of many."""

    id = models.BigIntegerField(primary_key=True)
    heap = models.TextField()

    class Meta:
        app_label = "definitions_counted"

    class Shard:
        key = "id"


@query(order="id")
def grains(*, heap: str | None = None, id: list[int] | None = None) -> Page[Grain]:
    """The grains of a heap."""
    return Grain.objects.given(heap=heap, id=id)


@query
def grain(*, id: int) -> Grain | None:
    """One grain."""
    return Grain.objects.filter(id=id).one()


MODELS = [Grain]


@pytest.fixture(scope="module")
def catalog(shard: ServedShard) -> Catalog:
    """Return the endpoints, once there are a small heap and a large one."""
    with psycopg.connect(shard.rw_dsn) as connection:
        connection.execute("SELECT set_config('sp.load', 'on', true)")
        for heap, first, size in (("small", 1, FEW), ("large", 1_000, MANY)):
            connection.execute(
                "INSERT INTO definitions_counted_grain (id, heap, bucket)"
                " SELECT n, %s, 1 FROM generate_series(%s::int, %s::int) AS n",
                [heap, first, first + size - 1],
            )
    with psycopg.connect(shard.admin_dsn, autocommit=True) as admin:
        admin.execute(f"ANALYZE {shard.schema}.definitions_counted_grain")
    return catalog_of([grains, grain], MODELS)


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    """Return what runs a test's coroutines."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


def asked(
    loop: asyncio.Runner, shard: ServedShard, catalog: Catalog, name: str, call: calls.Call
) -> Any:
    """Return what a shard answers."""

    async def scenario() -> Any:
        lanes = LanePool(shard.ro_dsn, 1, LaneLimits())
        await lanes.open()
        try:
            asides = Asides(catalog=catalog, lanes=lanes, shard="s1")
            came: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            deadline = asyncio.get_running_loop().time() + PATIENCE_S
            asides.count(catalog.endpoints[name], call, deadline, came.set_result)
            return await asyncio.wait_for(came, PATIENCE_S)
        finally:
            await lanes.close()

    return loop.run(scenario())


@pytest.mark.parametrize(
    ("mask", "values", "rows"),
    [
        (0, [], FEW + MANY),
        (1, ["small"], FEW),
        (1, ["nothing"], 0),
        (2, [["1", "2", "1000000"]], 2),
        (3, ["small", ["1", "1000"]], 1),
    ],
)
def test_an_exact_count_counts(
    loop: asyncio.Runner,
    shard: ServedShard,
    catalog: Catalog,
    mask: int,
    values: list[Any],
    rows: int,
) -> None:
    """Every row that the parameters match, whatever the page's limit."""
    call = calls.Call(mask, values, about=calls.COUNT)

    assert asked(loop, shard, catalog, "grains", call) == calls.GroupPart([[rows, 0]])


def test_an_estimate_of_few_is_exact(
    loop: asyncio.Runner, shard: ServedShard, catalog: Catalog
) -> None:
    """They are counted: it costs little."""
    call = calls.Call(1, ["small"], about=calls.ESTIMATE)

    assert asked(loop, shard, catalog, "grains", call) == calls.GroupPart([[FEW, 0]])


def test_an_estimate_of_many_is_the_planners(
    loop: asyncio.Runner, shard: ServedShard, catalog: Catalog
) -> None:
    """It says that it is a guess, is about right with fresh statistics, and never less than what
    was counted."""
    call = calls.Call(1, ["large"], about=calls.ESTIMATE)
    part = asked(loop, shard, catalog, "grains", call)

    ((rows, guesses),) = part.rows
    assert guesses == 1
    assert ESTIMATED_FROM < rows < 2 * MANY


@pytest.mark.parametrize(("name", "about"), [("grain", calls.COUNT), ("grains", "gossip")])
def test_what_cannot_be_counted_is_refused(
    loop: asyncio.Runner, shard: ServedShard, catalog: Catalog, name: str, about: str
) -> None:
    """What has no pages, and what is no question that is known."""
    with pytest.raises(InvalidRequest):
        asked(loop, shard, catalog, name, calls.Call(1, ["1"], about=about))
