"""What a module of shard tests has for its own: a database, a shard of its MODELS, a worker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from engine.databases import PostgresServer

if TYPE_CHECKING:  # both need Django set up, which it is not yet when this is read
    from tests.shard.served import ServedShard
    from tests.shard.writing import WritingNode


@pytest.fixture(scope="module")
def dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """Return the address of a database of the module's own."""
    name = f"own_{uuid.uuid4().hex[:12]}"
    postgres_server.ensure_database(name)
    yield postgres_server.dsn(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="module")
def shard(
    request: pytest.FixtureRequest,
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: Any,
) -> Iterator[ServedShard]:
    """Return a shard with the module's MODELS that owns every bucket at epoch 0."""
    from tests.shard.served import served_shard

    folder = tmp_path_factory.mktemp("served")
    with (
        django_db_blocker.unblock(),
        served_shard(postgres_server, folder, request.module.MODELS) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, shard: ServedShard) -> Iterator[WritingNode]:
    """Return a worker that serves the module's ENDPOINTS from it."""
    from tests.shard.writing import catalog_of, writing_node

    catalog = catalog_of(request.module.ENDPOINTS, request.module.MODELS)
    with writing_node(shard, catalog) as found:
        yield found
