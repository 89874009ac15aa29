"""How fast the real flights load, beside one ``\\copy`` into one table with the same indexes.

    make bench                     (or: python -m tests.benchmarks.load --rounds 3 --shards 4)

Rounds of both sides alternate on one machine and one Postgres; medians and the median of the
ratios of each round are printed as Markdown.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import django
import psycopg

from engine.binaries import find_postgres
from engine.postgres import EmbeddedPostgres, PostgresSettings
from engine.run_dir import RunDir
from engine.valkey import EmbeddedValkey
from tests.cluster.clusters import (
    Cluster,
    await_cluster,
    begin_cluster,
    end_cluster,
    run_manage,
    shard_tables,
)

MODEL, TABLE = "Flight", "definitions_flight"
PROJECT = Path(__file__).resolve().parent.parent.parent


def psql() -> str:
    """Return the psql that belongs to the server."""
    found = shutil.which("psql")
    return found or str(find_postgres(None, copies=Path(tempfile.gettempdir())).path("psql"))


def copy_once(server: EmbeddedPostgres, shard_database: str, path: Path) -> float:
    """Return the seconds that psql's \\copy takes into an empty table with a shard's indexes."""
    admin = server.dsn(shard_database)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS alone CASCADE")
        connection.execute("CREATE SCHEMA alone")
        connection.execute(f"CREATE TABLE alone.{TABLE} (LIKE s1.{TABLE} INCLUDING ALL)")
        connection.execute(f"ALTER TABLE alone.{TABLE} ALTER bucket SET DEFAULT 0")
        connection.execute("CHECKPOINT")
    columns = path.open(encoding="utf-8").readline().strip()
    command = (
        f"\\copy alone.{TABLE} ({columns}) FROM '{path}' "
        "(FORMAT csv, HEADER, FORCE_NOT_NULL (tailnum))"
    )
    began = time.perf_counter()
    subprocess.run(
        [psql(), "-q", admin, "-c", command],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began


def load_once(server: EmbeddedPostgres, cluster: Cluster, path: Path) -> float:
    """Return the seconds that ``manage.py load`` says it took, into emptied shards."""
    with shard_tables(server, cluster) as connection:
        connection.execute("SET session_replication_role = replica")  # TRUNCATE is refused else
        for number in range(cluster.shards):
            connection.execute(f"TRUNCATE s{number + 1}.{TABLE}")
            connection.execute(f"TRUNCATE s{number + 1}.sp_load")
    shutil.rmtree(cluster.run_dir / "loads", ignore_errors=True)
    said = cluster.manage("load", MODEL, str(path))
    found = re.search(r"loaded in ([0-9.]+) s", said.stdout + said.stderr)
    assert found, said.stdout + said.stderr
    return float(found[1])


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=4)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dispatcher_site.settings")
    django.setup()
    folder = Path(tempfile.mkdtemp(prefix="spb-"))
    run_dir = RunDir(folder / "servers").create()
    server = EmbeddedPostgres(run_dir, settings=PostgresSettings(connections_max=300))
    valkey = EmbeddedValkey(run_dir)
    cluster: Cluster | None = None
    try:
        server.start()
        valkey.start()
        run_manage(("sample", "flights", "--out", str(folder)), {"RUN_DIR": str(folder / "x")})
        path = folder / "flights.csv"
        rows = sum(1 for _ in path.open(encoding="utf-8")) - 1
        cluster = await_cluster(begin_cluster(server, valkey.url, shards=options.shards))
        rounds = [
            (copy_once(server, cluster.database, path), load_once(server, cluster, path))
            for _ in range(options.rounds)
        ]
    finally:
        if cluster is not None:
            end_cluster(cluster)
        valkey.stop()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    copied = statistics.median(seconds for seconds, _ in rounds)
    loaded = statistics.median(seconds for _, seconds in rounds)
    ratio = statistics.median(a / b for a, b in rounds)
    sys.stdout.write(
        f"| {rows:,} flights, {options.rounds} rounds | seconds | rows/s | ratio |\n"
        "|---|---|---|---|\n"
        f"| psql \\copy, one table, same indexes | {copied:.2f} | {rows / copied:,.0f} | 1.00 |\n"
        f"| manage.py load, {options.shards} shards | {loaded:.2f} | {rows / loaded:,.0f} "
        f"| {ratio:.2f} |\n"
    )


if __name__ == "__main__":
    main()
