"""A provisioned shard for each test, in a database of its own on the session's server.

Tests of what is refused share one of their module: it stays as it is, or they fail.

Imports that need Django's settings stand inside the fixtures: this file is read before they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from engine.databases import PostgresServer

if TYPE_CHECKING:
    from tests.shard.storage.provisioned import FixtureShard


@pytest.fixture(autouse=True)
def own_connections(django_db_blocker: Any) -> Iterator[None]:
    """Let Django connect: to the shards made here, never to the settings' database."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def shard(
    postgres_server: PostgresServer, fresh_database: str, tmp_path: Path
) -> Iterator[FixtureShard]:
    """Return a shard that owns every bucket."""
    from tests.shard.storage.provisioned import drop_roles, make_shard

    made = make_shard(postgres_server, fresh_database, tmp_path)
    yield made
    drop_roles(made.admin_dsn, made.names)


@pytest.fixture
def rw(shard: FixtureShard) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of the login that writes rows."""
    with psycopg.connect(shard.rw_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def ro(shard: FixtureShard) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of the login that reads."""
    with psycopg.connect(shard.ro_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def settled(
    postgres_server: PostgresServer,
    dsn: str,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: Any,
) -> Iterator[FixtureShard]:
    """Return a shard with one person of bucket 7 and one country, which no test changes."""
    from tests.shard.storage.provisioned import drop_roles, make_shard

    database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    folder = tmp_path_factory.mktemp("settled")
    with django_db_blocker.unblock():
        made = make_shard(postgres_server, str(database), folder)
    with psycopg.connect(made.rw_dsn) as connection:
        connection.execute("SELECT set_config('sp.load', 'on', true)")
        connection.execute("INSERT INTO fixture_person VALUES (7, 1, 'A', 'SE', NULL)")
        connection.execute("INSERT INTO fixture_country VALUES ('SE', 'Sweden')")
    yield made
    drop_roles(made.admin_dsn, made.names)


@pytest.fixture
def settled_rw(settled: FixtureShard) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of the settled shard's login that writes rows."""
    with psycopg.connect(settled.rw_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def settled_ro(settled: FixtureShard) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of the settled shard's login that reads."""
    with psycopg.connect(settled.ro_dsn, autocommit=True) as connection:
        yield connection
