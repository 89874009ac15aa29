"""A provisioned shard with the fixture models, and how it is removed again."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from engine.databases import PostgresServer
from shardnode.storage.naming import ShardNames, shard_names
from shardnode.storage.provision import ShardPlace, provision
from tests.shard.storage.fixture_models import country, person


@dataclass
class FixtureShard:
    """A provisioned shard and its logins."""

    place: ShardPlace
    admin_dsn: str
    rw_dsn: str
    ro_dsn: str
    migrate_dsn: str
    mon_dsn: str
    person: Any
    country: Any

    @property
    def names(self) -> ShardNames:
        """Return the names of roles and schema."""
        return self.place.names


def make_shard(
    server: PostgresServer, database: str, run_dir: Path, *, name: str = "s1"
) -> FixtureShard:
    """Provision a shard with the fixture models."""
    cluster_id = uuid.uuid4()
    names = shard_names(shard=name, schema=name, cluster_id=cluster_id)
    place = ShardPlace(names, cluster_id, "127.0.0.1", 1, run_dir, ("none",))
    people, countries = person(), country()
    report = provision(
        place, admin_dsn=server.dsn(database), models=[countries, people], bundle="b1"
    )
    node = json.loads(report.node_file.read_text())
    worker = json.loads((run_dir / "migrate.json").read_text())[name]
    return FixtureShard(
        place,
        server.dsn(database),
        node["rw_dsn"],
        node["ro_dsn"],
        worker["migrate_dsn"],
        worker["mon_dsn"],
        people,
        countries,
    )


def drop_roles(admin_dsn: str, names: ShardNames) -> None:
    """Remove a shard's schema and roles; they would outlive the test's database."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        for role in (*names.logins, names.owner):
            admin.execute(f'DROP OWNED BY "{role}" CASCADE')
        for role in (*names.logins, names.owner):
            admin.execute(f'DROP ROLE "{role}"')
