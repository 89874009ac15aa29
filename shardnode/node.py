"""One shard node in one worker process: its config, identity, knowledge and logins.

Made once per process, after the fork. Connections for control requests are opened per request:
they are rare, and must neither wait for nor take from the data path's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from modeldefs.wire.enrolment import Identity
from modeldefs.wire.signing import NonceCache
from shardnode.guard.keeper import Keeper
from shardnode.guard.trust import Trust
from shardnode.identity import check_identity, ensure_identity, read_database_identity
from shardnode.settings.environment import NodeConfig

CONNECT_TIMEOUT_S = 5


@dataclass(slots=True)
class Node:
    """What a worker of a shard node knows and may use."""

    config: NodeConfig
    identity: Identity
    keeper: Keeper
    trust: Trust
    system_identifier: str
    join_token: str = field(default="", repr=False)
    nonces: NonceCache = field(default_factory=NonceCache)

    @contextmanager
    def read_write(self) -> Iterator[psycopg.Connection[Any]]:
        """Open a connection of the login that writes rows."""
        with _connection(self.config.rw_dsn, "shardnode control rw") as connection:
            yield connection

    @contextmanager
    def read_only(self) -> Iterator[psycopg.Connection[Any]]:
        """Open a connection of the login that cannot write."""
        with _connection(self.config.ro_dsn, "shardnode control ro") as connection:
            yield connection

    def close(self) -> None:
        """Stop what runs in the background."""
        self.keeper.stop()


def open_node(config: NodeConfig, *, join_token: str = "") -> Node:
    """Return the node of a config, its state read once and kept current from now on.

    Raises:
        IdentityMismatch: The database belongs to another node.
        psycopg.Error: The database cannot be read.
    """
    identity = ensure_identity(config.folder)
    with _connection(config.ro_dsn, "shardnode start") as connection:
        database = read_database_identity(connection)
    check_identity(identity, database)
    keeper = Keeper(config.ro_dsn)
    keeper.start()
    trust = Trust(identity, keeper, shard=config.name, folder=config.folder)
    return Node(config, identity, keeper, trust, database.system_identifier, join_token)


@contextmanager
def _connection(dsn: str, application: str) -> Iterator[psycopg.Connection[Any]]:
    connection = psycopg.connect(
        dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name=application
    )
    try:
        yield connection
    finally:
        connection.close()
