"""A shard's logins can do what their work needs and nothing else."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from engine.databases import PostgresServer
from modeldefs.kit.buckets import bucket_of
from shardnode.storage.provision import provision
from shardnode.storage.roles import AdminLoginRefused, login_dsn
from tests.shard.storage.provisioned import FixtureShard, drop_roles, make_shard

Connection = psycopg.Connection[Any]


def add_person(rw: Connection, id: int) -> None:
    """Write one row as a mutation would."""
    with rw.transaction():
        rw.execute("SELECT set_config('sp.bucket', %s, true)", (str(bucket_of(id)),))
        rw.execute(
            "INSERT INTO fixture_person (bucket, id, name, country) VALUES (%s, %s, 'A', 'SE')",
            (bucket_of(id), id),
        )


@pytest.mark.parametrize(
    "script",
    [
        "DELETE FROM fixture_person",
        "COMMIT; DELETE FROM fixture_person",
        "SET default_transaction_read_only = off; DELETE FROM fixture_person",
        "BEGIN READ WRITE; UPDATE fixture_person SET name = 'B'; COMMIT",
        "RESET ROLE; INSERT INTO fixture_country VALUES ('SE', 'Sweden')",
        "BEGIN READ WRITE; TRUNCATE fixture_person; COMMIT",
        "BEGIN READ WRITE; SELECT lo_create(0); COMMIT",
        "BEGIN READ WRITE; CREATE TEMP TABLE t (a int); COMMIT",
        "BEGIN READ WRITE; SELECT 1 FROM sp_bucket FOR UPDATE; COMMIT",
        "BEGIN READ WRITE; SELECT sp_accept_map(1, '[]', '[]'); COMMIT",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_notify('a', 'b')",
    ],
)
def test_reader_never_writes(settled_rw: Connection, settled_ro: Connection, script: str) -> None:
    """The read login changes nothing, whatever it does to its session first."""
    with pytest.raises((errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)):
        settled_ro.execute(script)
    settled_ro.rollback()

    assert settled_rw.execute("SELECT name FROM fixture_person").fetchall() == [("A",)]
    assert settled_rw.execute("SELECT name FROM fixture_country").fetchall() == [("Sweden",)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (a int)",
        "ALTER TABLE fixture_person ADD COLUMN x int",
        "DROP TABLE fixture_person",
        "TRUNCATE fixture_person",
        "ALTER TABLE fixture_person DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "UPDATE sp_bucket SET state = 'owned'",
        "UPDATE sp_meta SET map_epoch = 7",
        "DELETE FROM sp_load",
        "SET ROLE {owner}",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY fixture_person TO PROGRAM 'cat'",
    ],
)
def test_writer_changes_rows_only(
    settled: FixtureShard, settled_rw: Connection, statement: str
) -> None:
    """The write login can neither change tables nor its shard's ownership."""
    with pytest.raises(errors.InsufficientPrivilege):
        settled_rw.execute(statement.replace("{owner}", f'"{settled.names.owner}"'))

    assert settled_rw.execute("SELECT name FROM fixture_person").fetchall() == [("A",)]


def test_schemas_are_apart(
    postgres_server: PostgresServer, fresh_database: str, tmp_path: Path
) -> None:
    """Logins of one shard see no table of another shard in the same database."""
    first = make_shard(postgres_server, fresh_database, tmp_path, name="s1")
    second = make_shard(postgres_server, fresh_database, tmp_path, name="s2")
    try:
        for dsn in (first.rw_dsn, first.ro_dsn, first.migrate_dsn, first.mon_dsn):
            with psycopg.connect(dsn, autocommit=True) as connection:
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute("SELECT * FROM s2.fixture_person")
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute("SELECT * FROM s2.sp_meta")
        with (
            psycopg.connect(first.mon_dsn, autocommit=True) as watcher,
            psycopg.connect(second.rw_dsn, autocommit=True) as other,
        ):
            row = watcher.execute(
                "SELECT sp_signal(%s, true)", (other.info.backend_pid,)
            ).fetchone()
            assert row == (False,)
            assert other.execute("SELECT 1").fetchone() == (1,)
    finally:
        drop_roles(first.admin_dsn, first.names)
        drop_roles(second.admin_dsn, second.names)


def test_watcher_ends_sessions_of_its_shard(shard: FixtureShard, rw: Connection) -> None:
    """The watching login can end a session of its own shard, though it may not signal others."""
    with psycopg.connect(shard.mon_dsn, autocommit=True) as watcher:
        row = watcher.execute("SELECT sp_signal(%s, true)", (rw.info.backend_pid,)).fetchone()

    assert row == (True,)
    with pytest.raises(psycopg.OperationalError):
        rw.execute("SELECT 1")


def test_provisioning_again_keeps_passwords(shard: FixtureShard) -> None:
    """A second provisioning changes nothing that a running node depends on."""
    before = (shard.place.folder / "node.json").read_text()

    report = provision(
        shard.place,
        admin_dsn=shard.admin_dsn,
        models=[shard.country, shard.person],
        bundle="b1",
    )

    assert (shard.place.folder / "node.json").read_text() == before
    assert (report.applied.tables, report.applied.columns, report.applied.indexes) == ([], [], [])


def test_private_files(shard: FixtureShard) -> None:
    """Files with logins and keys are readable by their owner only, and apart."""
    for path in (
        shard.place.folder / "node.json",
        shard.place.folder / "identity.json",
        shard.place.run_dir / "migrate.json",
    ):
        assert path.stat().st_mode & 0o077 == 0
    assert "_migrate" not in (shard.place.folder / "node.json").read_text()


def test_login_without_createrole_is_told_so(
    postgres_server: PostgresServer, fresh_database: str, shard: FixtureShard
) -> None:
    """An admin login that may not make roles gets the statement that would let it."""
    role = f"weak_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(shard.admin_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'weak'")
        admin.execute(f"GRANT CONNECT ON DATABASE {fresh_database} TO {role}")
        try:
            with pytest.raises(AdminLoginRefused, match="CREATEROLE"):
                provision(
                    shard.place,
                    admin_dsn=login_dsn(
                        shard.admin_dsn, user=role, password="weak", application="t"
                    ),
                    models=[],
                    bundle="b1",
                )
        finally:
            admin.execute(f"REVOKE ALL ON DATABASE {fresh_database} FROM {role}")
            admin.execute(f"DROP ROLE {role}")


def test_admin_without_superuser_is_enough(
    postgres_server: PostgresServer, fresh_database: str, tmp_path: Path
) -> None:
    """CREATEROLE and CREATE on the database are all that provisioning needs; the rest is noted."""
    role = f"admin_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres_server.dsn(fresh_database), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN CREATEROLE PASSWORD 'admin'")
        admin.execute(f"GRANT CREATE, CONNECT ON DATABASE {fresh_database} TO {role}")
    server_dsn = postgres_server.dsn
    weak = login_dsn(server_dsn(fresh_database), user=role, password="admin", application="t")

    class WeakServer:
        """The session's server, through the weaker login."""

        def dsn(self, dbname: str = "postgres", **_: Any) -> str:
            """Return the weaker login's URL."""
            return weak

    made = make_shard(WeakServer(), fresh_database, tmp_path)  # type: ignore[arg-type]
    try:
        with psycopg.connect(made.rw_dsn, autocommit=True) as connection:
            add_person(connection, 1)
    finally:
        with psycopg.connect(server_dsn(fresh_database), autocommit=True) as admin:
            drop_roles(server_dsn(fresh_database), made.names)
            admin.execute(f"DROP OWNED BY {role}")
            admin.execute(f"DROP ROLE {role}")
