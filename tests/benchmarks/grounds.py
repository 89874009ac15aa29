"""The ground everybody stands on: one Postgres with durable commits, and one plain table in it.

Our clusters keep their shards in databases of this server, pgbench and the peers share the plain
one, so that the same machine, configuration and buffers serve all.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from engine.postgres import EmbeddedPostgres, PostgresSettings
from engine.run_dir import RunDir
from engine.valkey import EmbeddedValkey
from tests.benchmarks import rows

PLAIN = "plain"
CONNECTIONS_MAX = 500


@dataclass(slots=True)
class Grounds:
    """The running servers and the folder of this benchmark's files."""

    folder: Path
    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey

    @property
    def items_csv(self) -> Path:
        """The rows as a file."""
        return self.folder / "items.csv"

    @property
    def plain_dsn(self) -> str:
        """The database with the plain table."""
        return self.postgres.dsn(PLAIN)

    def postgres_roots(self) -> list[int]:
        """Return the pid that all of Postgres' processes are below."""
        pid = self.postgres.running_pid()
        return [] if pid is None else [pid]

    def version(self) -> str:
        """Return the server's version."""
        with psycopg.connect(self.plain_dsn) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        return str(row[0]) if row else ""


def fill_plain(dsn: str) -> None:
    """Make the plain table anew, with its rows, its index and its statistics."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS item CASCADE")
        connection.execute(rows.TABLE)
        copied = f"COPY item ({', '.join(rows.COLUMNS)}) FROM STDIN"
        with connection.cursor() as cursor, cursor.copy(copied) as copy:
            for row in rows.items():
                copy.write_row(row)
        connection.execute(rows.INDEX)
        connection.execute("VACUUM ANALYZE item")


def forget_inserts(dsn: str, table: str = "item") -> None:
    """Remove what inserts have left, so that the next workload finds the table as it was."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # past the shards' guards
        connection.execute(f"DELETE FROM {table} WHERE id >= {rows.FRESH_FROM}".encode())
        connection.execute(f"VACUUM ANALYZE {table}".encode())


@contextlib.contextmanager
def standing() -> Iterator[Grounds]:
    """Run the servers while the block runs, and leave nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="spb-"))
    run_dir = RunDir(folder / "servers").create()
    settings = PostgresSettings(connections_max=CONNECTIONS_MAX)
    grounds = Grounds(
        folder, EmbeddedPostgres(run_dir, settings=settings), EmbeddedValkey(run_dir)
    )
    try:
        grounds.postgres.start()
        grounds.valkey.start()
        rows.write_csv(grounds.items_csv)
        grounds.postgres.ensure_database(PLAIN)
        fill_plain(grounds.plain_dsn)
        yield grounds
    finally:
        grounds.valkey.stop()
        grounds.postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)
