"""A provisioned shard for each test, in a database of its own on the session's server.

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
