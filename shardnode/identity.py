"""Who a shard node is: its identity file, and the instance that its Postgres must agree with.

Invariant: one identity belongs to one database. A node whose identity file and ``sp_meta`` name
different instances does not start: somebody copied a folder or restored another shard's data.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from modeldefs.wire.enrolment import Identity

FILE_NAME = "identity.json"


class IdentityMismatch(Exception):
    """The identity file and the database belong to different shards."""


@dataclass(frozen=True, slots=True)
class DatabaseIdentity:
    """What the database says of itself."""

    instance: uuid.UUID
    system_identifier: str


def ensure_identity(folder: Path) -> Identity:
    """Return the identity in a node's folder, made on the first call."""
    path = folder / FILE_NAME
    if not path.exists():
        return Identity.create(path, id=str(uuid.uuid4()))
    return Identity.load(path)


def read_database_identity(connection: psycopg.Connection[Any]) -> DatabaseIdentity:
    """Return the instance in sp_meta and the server's own identifier."""
    row = connection.execute(
        "SELECT instance, (SELECT system_identifier::text FROM pg_control_system()) FROM sp_meta"
    ).fetchone()
    if row is None:
        raise IdentityMismatch("this schema was never provisioned")
    return DatabaseIdentity(instance=row[0], system_identifier=row[1])


def check_identity(identity: Identity, database: DatabaseIdentity) -> None:
    """Refuse to serve a database that belongs to another instance.

    Raises:
        IdentityMismatch: They differ.
    """
    if identity.id != str(database.instance):
        raise IdentityMismatch(
            f"{FILE_NAME} is of instance {identity.id}, the database of {database.instance}: "
            "give the node its own folder back, or provision with --adopt"
        )
