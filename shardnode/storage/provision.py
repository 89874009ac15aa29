"""Provisioning of a shard: from an admin login to a schema that a node can serve.

Invariant: every step can be repeated, and beside itself; passwords that a running node uses are
kept; what is written to the run directory is readable by its owner only, and the migration login
lies apart from what the node reads.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from engine.run_dir import private_folder, write_private
from shardnode.identity import ensure_identity
from shardnode.storage.bookkeeping import bookkeeping_statements, collation_statement
from shardnode.storage.expectations import Model
from shardnode.storage.naming import ShardNames
from shardnode.storage.roles import RoleLimits, ensure_roles, login_dsn
from shardnode.storage.tables import ApplyReport, ShardTables

ATTEMPTS_MAX = 5
CONNECT_TIMEOUT_S = 10
NODE_FILE = "node.json"
MIGRATE_FILE = "migrate.json"


class InstanceTaken(Exception):
    """The schema already belongs to another node's identity."""


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """Where a shard's node listens and keeps its files."""

    names: ShardNames
    cluster_id: UUID
    host: str
    port: int
    run_dir: Path
    definitions: tuple[str, ...]
    workers: int = 1

    @property
    def folder(self) -> Path:
        """Return the node's own folder."""
        return self.run_dir / "nodes" / self.names.shard


@dataclass(slots=True)
class ProvisionReport:
    """What provisioning left behind."""

    node_file: Path
    instance: str
    notes: list[str] = field(default_factory=list)
    applied: ApplyReport = field(default_factory=ApplyReport)


def provision(
    place: ShardPlace,
    *,
    admin_dsn: str,
    models: Sequence[Model],
    bundle: str,
    limits: RoleLimits | None = None,
    adopt: bool = False,
) -> ProvisionReport:
    """Make roles, schema, bookkeeping and tables of a shard, and write the node's files.

    Raises:
        AdminLoginRefused: The admin login may not do it.
        InstanceTaken: The schema belongs to another node; ``adopt`` takes it over.
        RolloutNeeded: The schema holds tables that an additive change cannot bring up to date.
    """
    # A folder that exists keeps its mode: an embedded Postgres may need to pass through it.
    for folder in (place.run_dir, place.folder.parent, place.folder):
        if not folder.is_dir():
            private_folder(folder)
    with _locked(place.folder):
        return _provision(place, admin_dsn, models, bundle, limits or RoleLimits(), adopt)


def _provision(
    place: ShardPlace,
    admin_dsn: str,
    models: Sequence[Model],
    bundle: str,
    limits: RoleLimits,
    adopt: bool,
) -> ProvisionReport:
    names = place.names
    identity = ensure_identity(place.folder)
    passwords, notes = _make_roles(place, admin_dsn, limits)

    def dsn(login: str) -> str:
        return login_dsn(admin_dsn, user=login, password=passwords[login], application=login)

    _make_bookkeeping(dsn(names.migrate), place, UUID(identity.id), adopt=adopt)
    tables = ShardTables(dsn(names.migrate), names)
    try:
        applied = tables.apply(models, bundle=bundle)
    finally:
        tables.close()
    node_file = _write_files(
        place,
        rw=dsn(names.rw),
        ro=dsn(names.ro),
        filtered={"frw_dsn": dsn(names.frw), "fro_dsn": dsn(names.fro)},
        worker={"migrate_dsn": dsn(names.migrate), "mon_dsn": dsn(names.mon)},
    )
    return ProvisionReport(node_file, identity.id, notes, applied)


def migrate_entry(run_dir: Path, shard: str) -> dict[str, str]:
    """Return the migration login of a shard.

    Raises:
        LookupError: The shard was not provisioned from this run directory.
    """
    entries = _read_json(run_dir / MIGRATE_FILE)
    if shard not in entries:
        raise LookupError(f"shard {shard} was not provisioned in {run_dir}")
    entry: dict[str, str] = entries[shard]
    return entry


def _make_roles(
    place: ShardPlace, admin_dsn: str, limits: RoleLimits
) -> tuple[dict[str, str], list[str]]:
    known = _known_passwords(place)
    with psycopg.connect(admin_dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as admin:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                report = ensure_roles(admin, place.names, known_passwords=known, limits=limits)
            except (errors.DuplicateObject, errors.DuplicateSchema, errors.UniqueViolation):
                # Another provisioning was first; what it made is found the next time round.
                if attempt == ATTEMPTS_MAX:
                    raise
            except errors.InternalError as race:
                if attempt == ATTEMPTS_MAX or "concurrently updated" not in str(race):
                    raise
            else:
                return report.passwords, report.notes
    raise AssertionError("unreachable")


def _known_passwords(place: ShardPlace) -> dict[str, str]:
    """Return the passwords in the run directory: a running node must not be locked out."""
    node = _read_json(place.folder / NODE_FILE)
    entry = _read_json(place.run_dir / MIGRATE_FILE).get(place.names.shard, {})
    known = {}
    stored = [node.get(f"{login}_dsn") for login in ("rw", "ro", "frw", "fro")]
    for dsn in (*stored, entry.get("migrate_dsn"), entry.get("mon_dsn")):
        if dsn:
            parts = conninfo_to_dict(dsn)
            known[str(parts.get("user"))] = str(parts.get("password") or "")
    return known


def _make_bookkeeping(migrate_dsn: str, place: ShardPlace, instance: UUID, *, adopt: bool) -> None:
    with psycopg.connect(
        migrate_dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
    ) as connection:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                with connection.transaction():
                    _bookkeeping(connection, place, instance, adopt=adopt)
                return
            except (
                errors.DuplicateObject,
                errors.DuplicateTable,
                errors.UniqueViolation,
                errors.InternalError,
            ):
                if attempt == ATTEMPTS_MAX:
                    raise


def _bookkeeping(
    connection: psycopg.Connection[Any], place: ShardPlace, instance: UUID, *, adopt: bool
) -> None:
    names = place.names
    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(names.owner)))
    connection.execute(
        collation_statement(
            names,
            server_version=connection.info.server_version,
            libc_locale=_libc_locale(connection),
        )
    )
    for statement in bookkeeping_statements(names):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO sp_meta (cluster_id, shard_name, instance) VALUES (%s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (place.cluster_id, names.shard, instance),
    )
    row = connection.execute("SELECT instance, shard_name FROM sp_meta FOR UPDATE").fetchone()
    assert row is not None
    if row != (instance, names.shard):
        if not adopt:
            raise InstanceTaken(
                f"schema {names.schema} belongs to shard {row[1]}, instance {row[0]}: "
                "if its run directory is lost for good, provision again with --adopt"
            )
        connection.execute(
            "UPDATE sp_meta SET instance = %s, shard_name = %s, changes = changes + 1",
            (instance, names.shard),
        )


def _libc_locale(connection: psycopg.Connection[Any]) -> str:
    """Return this system's name of C.UTF-8; "C" orders alike where there is none."""
    row = connection.execute(
        "SELECT collcollate FROM pg_collation WHERE collprovider = 'c'"
        " AND lower(replace(collcollate, '-', '')) = 'c.utf8' ORDER BY 1 LIMIT 1"
    ).fetchone()
    return str(row[0]) if row else "C"


def _write_files(
    place: ShardPlace, *, rw: str, ro: str, filtered: dict[str, str], worker: dict[str, str]
) -> Path:
    node_file = place.folder / NODE_FILE
    document = {
        "name": place.names.shard,
        "host": place.host,
        "port": place.port,
        "schema": place.names.schema,
        "rw_dsn": rw,
        "ro_dsn": ro,
        **filtered,
        "run_dir": str(place.run_dir),
        "definitions": list(place.definitions),
        "workers": place.workers,
        "cluster_id": str(place.cluster_id),
    }
    with _locked(place.run_dir):
        path = place.run_dir / MIGRATE_FILE
        entries = _read_json(path)
        entries[place.names.shard] = {
            **worker,
            "schema": place.names.schema,
            "cluster_id": str(place.cluster_id),
        }
        write_private(path, json.dumps(entries, indent=1) + "\n")
        write_private(node_file, json.dumps(document, indent=1) + "\n")
    return node_file


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change the files of a run directory."""
    lock = os.open(folder / "provision.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return document
