"""One shard node in one worker process: its config, identity, knowledge and logins.

Made once per process, after the fork. Connections for control requests are opened per request:
they are rare, and must neither wait for nor take from the data path's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg

from modeldefs.wire.enrolment import Identity
from modeldefs.wire.signing import NonceCache
from shardnode.guard.keeper import Keeper
from shardnode.guard.keyring_age import KeyringAge
from shardnode.guard.trust import Trust
from shardnode.identity import (
    DatabaseIdentity,
    check_identity,
    ensure_identity,
    read_database_identity,
)
from shardnode.settings.environment import NodeConfig

CONNECT_TIMEOUT_S = 5
START_PATIENCE_S = 5.0
START_POLL_S = 0.1
T = TypeVar("T")


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


def open_node(config: NodeConfig, *, join_token: str, keys_age_s_max: float) -> Node:
    """Return the node of a config, its state read once and kept current from now on.

    Args:
        config: What its node.json says.
        join_token: What enrolment asks for; "" for nothing.
        keys_age_s_max: How long keys are taken that the dispatcher does not confirm.

    Raises:
        IdentityMismatch: The database belongs to another node.
        psycopg.Error: The database cannot be read, for as long as one may take to come back.
    """
    identity = ensure_identity(config.folder)
    database = _patiently(lambda: _database_identity(config.ro_dsn))
    check_identity(identity, database)
    keeper = Keeper(config.ro_dsn)
    age = KeyringAge(config.folder, age_s_max=keys_age_s_max, clock=time.time)
    trust = Trust(identity, keeper, age, shard=config.name, folder=config.folder)
    _patiently(keeper.start)
    return Node(config, identity, keeper, trust, database.system_identifier, join_token)


def _database_identity(dsn: str) -> DatabaseIdentity:
    with _connection(dsn, "shardnode start") as connection:
        return read_database_identity(connection)


def _patiently(read: Callable[[], T]) -> T:
    """Read from a Postgres that may be recovering from a crash.

    A worker that gave up at once would end its siblings with it: to gunicorn it is one that cannot
    boot.
    """
    end_s = time.monotonic() + START_PATIENCE_S
    while True:
        try:
            return read()
        except psycopg.OperationalError:
            if time.monotonic() >= end_s:
                raise
            time.sleep(START_POLL_S)


@contextmanager
def _connection(dsn: str, application: str) -> Iterator[psycopg.Connection[Any]]:
    connection = psycopg.connect(
        dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name=application
    )
    try:
        yield connection
    finally:
        connection.close()
