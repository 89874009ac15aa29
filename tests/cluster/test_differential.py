"""Sharding never changes an answer: 1, 2, 3, 5 and 8 shards against one plain Django database."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date
from typing import Any

import psycopg
import pytest
from django.db import connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.databases import PostgresServer
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.tracing import presence_sets
from tests.cluster.clusters import Cluster, shard_tables
from tests.cluster.oracle import ALIAS, answer, same

# Values that the data knows, by parameter; endpoints share names, so one list serves them all.
KNOWN: dict[str, list[Any]] = {
    "tailnum": ["N14228", "N725MQ", "N722MQ", "N10156", "", "N-none"],
    "carrier": ["UA", "HA", "OO", "XX"],
    "without_carrier": ["UA", "HA"],
    "origin": ["EWR", "JFK", "LGA"],
    "dest": ["IAH", "BQN", "LEX", "HNL", "nowhere"],
    "faa": ["EWR", "BQN", "LAX"],
    "month": [1, 7, 12],
    "day": [1, 31],
    "year": [2004, 1956],
    "minutes": [300, 900],
    "miles": [2500, 4900],
    "manufacturer": ["BOEING", "AIRBUS", "Cessna", "CESSNA"],
    "older_than": [1970, 1985],
    "older": [1970],
    "visibility": [0.06, 1.0],
    "wind": [30.0],
    "prefix": ["A", "Mü", "o'", "%", "_"],
    "country": ["Sweden", "United States", "France", "nowhere"],
    "city": ["Sydney", "Paris", "Chicago"],
    "id": [1, 7, 4999, 10**15],
}


def _values(name: str, is_list: bool) -> list[Any]:
    known = KNOWN.get(name)
    if known is None:
        return []
    return [known[:1], known, list(reversed(known))] if is_list else known


def _wire(value: Any) -> Any:
    if isinstance(value, list):
        return [_wire(item) for item in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)


def _arguments(endpoint: Endpoint[Any, Any], names: frozenset[str], chance: random.Random) -> Any:
    chosen: dict[str, Any] = {}
    for spec in endpoint.parameters:
        if spec.name not in names:
            continue
        if spec.choices:
            chosen[spec.name] = chance.choice(spec.choices)
            continue
        values = _values(spec.name, spec.is_list)
        if not values and spec.pg_type.startswith("timestamptz"):
            values = [spec.kind.to_python("2013-11-05T00:00:00+00:00")]
        if not values and spec.pg_type.startswith("date"):
            values = [spec.kind.to_python("2013-07-04")]
        assert values, f"name values for {endpoint.name}({spec.name}) in KNOWN"
        chosen[spec.name] = chance.choice(values)
    return chosen


def _compare(
    endpoint: Endpoint[Any, Any],
    arguments: dict[str, Any],
    clusters: dict[int, Cluster],
    limit: int,
) -> None:
    expected = answer(endpoint, arguments)
    params = {name: _wire(value) for name, value in arguments.items()}
    for size, cluster in clusters.items():
        told = f"{endpoint.name}({arguments}) on {size} shards"
        if endpoint.shape == "page":
            if len(expected) > 30 * limit:
                page = cluster.get(f"/{endpoint.name}", limit=limit, **params).json()
                assert same(expected[:limit], page["items"]), told
                assert page["next"], told
                continue
            actual = cluster.walk(f"/{endpoint.name}", limit=limit, **params)
            assert same(expected, actual), told
            continue
        reply = cluster.get(f"/{endpoint.name}", **params)
        if expected is None and not endpoint.optional_result and endpoint.shape == "single":
            assert reply.status_code == 404, told
            continue
        assert reply.status_code == 200, f"{told}: {reply.text}"
        value = expected
        if endpoint.shape == "groups" and endpoint.options.top:
            value = expected[: endpoint.options.top]
        assert same(value, reply.json()["value"]), told


def _reads(catalog: Catalog) -> list[Endpoint[Any, Any]]:
    return [e for e in catalog.by_number if e.kind != "mutation"]


@pytest.mark.usefixtures("_unblocked")
def test_every_read_of_both_examples_agrees_with_one_database(
    loaded: dict[int, Cluster], catalog: Catalog
) -> None:
    """Every read, with every set of its parameters, gives the rows, types and order of one
    database, whatever the number of shards."""
    chance = random.Random(20131123)

    for endpoint in _reads(catalog):
        for names in presence_sets(endpoint):
            _compare(endpoint, _arguments(endpoint, names, chance), loaded, limit=400)


@pytest.mark.usefixtures("_unblocked")
def test_page_size_never_changes_the_rows(loaded: dict[int, Cluster], catalog: Catalog) -> None:
    """A walk in pages of 1, 7 and 1,000 rows gives the same rows in the same order."""
    endpoint = catalog.endpoints["flights_of_plane"]
    expected = answer(endpoint, {"tailnum": "N725MQ"})[:40]
    scattered = catalog.endpoints["get_user"]
    everybody = answer(scattered, {})

    assert len(expected) == 40
    for cluster in loaded.values():
        for limit in (7, 1000):
            rows = cluster.walk("/flights_of_plane", limit=limit, tailnum="N725MQ")
            assert same(expected, rows[:40])
        assert same(everybody, cluster.walk("/get_user", limit=997))
        few = cluster.walk("/get_user", limit=1, country="Sweden")[:5]
        assert same([row for row in everybody if row["country"] == "Sweden"][:5], few)


TEXT = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12
)
USERS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(-(2**63), 2**63 - 1),
            "first_name": TEXT,
            "last_name": TEXT,
            "country": st.sampled_from(["", "a", "A", "å", "Å", "𝒜", "ｚ", "%", "_", "Sweden"]),
            "address": TEXT,
            "city": st.sampled_from(["", "x", "Ö"]),
        }
    ),
    max_size=16,
    unique_by=lambda user: user["id"],
)


class World:
    """All that one comparison needs. No dataclass: Hypothesis would print all of it."""

    def __init__(
        self,
        clusters: dict[int, Cluster],
        server: PostgresServer,
        catalog: Catalog,
        oracle_dsn: str,
    ) -> None:
        self.clusters = clusters
        self.server = server
        self.catalog = catalog
        self.oracle_dsn = oracle_dsn

    def __repr__(self) -> str:
        return "World()"


@pytest.fixture(scope="module")
def world(
    loaded: dict[int, Cluster],
    postgres_server: PostgresServer,
    catalog: Catalog,
    oracle_dsn: str,
) -> World:
    """Return the clusters and the oracle."""
    return World(loaded, postgres_server, catalog, oracle_dsn)


@pytest.fixture
def _people_put_back(world: World) -> Iterator[None]:
    """Keep the sample's people aside: other modules use the same clusters."""
    table = world.catalog.model("User")._meta.db_table

    def each() -> Iterator[tuple[psycopg.Connection[Any], list[str]]]:
        with psycopg.connect(world.oracle_dsn, autocommit=True) as connection:
            yield connection, [f'public."{table}"']
        for cluster in world.clusters.values():
            with shard_tables(world.server, cluster) as connection:
                yield connection, [f's{n + 1}."{table}"' for n in range(cluster.shards)]

    for connection, tables in each():
        for n, name in enumerate(tables):
            connection.execute(f"CREATE TABLE public.people_aside_{n} AS TABLE {name}")
    yield
    for connection, tables in each():
        for n, name in enumerate(tables):
            aside = f"public.people_aside_{n}"
            connection.execute(f"DELETE FROM {name}")
            connection.execute(f"INSERT INTO {name} SELECT * FROM {aside}")
            connection.execute(f"DROP TABLE {aside}")


@pytest.mark.usefixtures("_unblocked", "_people_put_back")
@given(users=USERS, limit=st.integers(1, 9), seed=st.integers(0, 2**16))
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_generated_people_agree_with_one_database(
    world: World, users: list[dict[str, Any]], limit: int, seed: int
) -> None:
    """Any people, written one by one through the endpoint, are read back by every query of the
    example exactly as one database gives them."""
    loaded = world.clusters
    model = world.catalog.model("User")
    chance = random.Random(seed)
    table = model._meta.db_table
    with psycopg.connect(world.oracle_dsn, autocommit=True) as connection:
        connection.execute(f'TRUNCATE "{table}"')
    for user in users:
        model.objects.using(ALIAS).create(**user)
    for cluster in loaded.values():
        with shard_tables(world.server, cluster) as connection:
            for number in range(cluster.shards):
                connection.execute(f'DELETE FROM s{number + 1}."{table}"')
        for user in users:
            reply = cluster.post("/insert_user", **{**user, "id": str(user["id"])})
            assert reply.status_code == 200, reply.text

    for endpoint in _reads(world.catalog):
        if endpoint.model is not model:
            continue
        for names in presence_sets(endpoint):
            arguments = _arguments(endpoint, names, chance)
            if "id" in arguments and users:
                known = [chance.choice(users)["id"] for _ in range(3)]
                is_list = isinstance(arguments["id"], list)
                arguments["id"] = known if is_list else known[0]
            if "country" in arguments and users:
                arguments["country"] = chance.choice(users)["country"]
            _compare(endpoint, arguments, loaded, limit)
    connections[ALIAS].close()
