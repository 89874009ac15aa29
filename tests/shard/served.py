"""A provisioned shard with models of a test's own, and Django's connection of its writer."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connections
from django.db.utils import ConnectionHandler

from engine.databases import PostgresServer
from shardnode.settings.environment import django_database
from shardnode.storage.naming import shard_names
from shardnode.storage.provision import ShardPlace, provision
from tests.shard.storage.provisioned import drop_roles

ALIAS = "served"


@dataclass(frozen=True)
class ServedShard:
    """Where a shard is read and written."""

    ro_dsn: str
    rw_dsn: str = ""
    admin_dsn: str = ""  # a superuser's
    schema: str = ""
    fro_dsn: str = ""  # of callers with a row filter
    frw_dsn: str = ""


@contextmanager
def served_shard(
    server: PostgresServer, run_dir: Path, models: Sequence[Any], alias: str = ALIAS
) -> Iterator[ServedShard]:
    """Make a shard in a database of its own; `using=alias` writes to it as its node does."""
    database = f"served_{uuid.uuid4().hex[:12]}"
    server.ensure_database(database)
    cluster_id = uuid.uuid4()
    names = shard_names(shard="s1", schema="s1", cluster_id=cluster_id)
    place = ShardPlace(names, cluster_id, "127.0.0.1", 1, run_dir, ("none",))
    admin_dsn = server.dsn(database)
    report = provision(place, admin_dsn=admin_dsn, models=list(models), bundle="b1")
    node = _node_file(report.node_file)
    wrapper = _writer(node["rw_dsn"], alias)
    connections[alias] = wrapper
    try:
        with wrapper.cursor() as cursor:
            # As a bulk load: rows of many buckets come in one session.
            cursor.execute("SELECT set_config('sp.load', 'on', false)")
        yield ServedShard(
            node["ro_dsn"],
            node["rw_dsn"],
            admin_dsn,
            names.schema,
            node["fro_dsn"],
            node["frw_dsn"],
        )
    finally:
        wrapper.close()
        del connections[alias]
        drop_roles(admin_dsn, names)
        server.drop_database(database)


def _node_file(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(path.read_text())
    return found


def _writer(dsn: str, alias: str) -> Any:
    handler = ConnectionHandler(
        {"default": {"ENGINE": "django.db.backends.dummy"}, alias: django_database(dsn)}
    )
    return handler[alias]


@contextmanager
def default_in_new_threads(shard: ServedShard) -> Iterator[None]:
    """Let new threads write to the shard by Django's default connection, as a node's do."""
    handler = ConnectionHandler({"default": django_database(shard.rw_dsn)})
    before = connections.settings["default"]
    connections.settings["default"] = handler.settings["default"]
    try:
        yield
    finally:
        connections.settings["default"] = before
