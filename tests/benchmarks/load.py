"""How fast the real flights load, beside one ``\\copy`` into one table with the same indexes.

Rounds of both sides alternate on one machine and one Postgres, which is the other workloads' too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psycopg

from engine.binaries import find_postgres
from engine.postgres import EmbeddedPostgres
from tests.benchmarks.figures import Sample
from tests.benchmarks.grounds import Grounds
from tests.benchmarks.ours import groups_of
from tests.benchmarks.processes import metered
from tests.benchmarks.rounds import Measured, say
from tests.benchmarks.workloads import LOAD
from tests.cluster.clusters import (
    Cluster,
    await_cluster,
    begin_cluster,
    end_cluster,
    run_manage,
    shard_tables,
)

MODEL, TABLE = "Flight", "definitions_flight"
COPY, LOADED = "psql \\copy, one table", "manage.py load, {} shards"


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
        connection.execute("CHECKPOINT")
    shutil.rmtree(cluster.run_dir / "loads", ignore_errors=True)
    said = cluster.manage("load", MODEL, str(path))
    found = re.search(r"loaded in ([0-9.]+) s", said.stdout + said.stderr)
    assert found, said.stdout + said.stderr
    return float(found[1])


def measure_load(grounds: Grounds, *, rounds: int, shards: int) -> Measured:
    """Return both sides' samples; a request is a row, and there are no latencies."""
    measured = Measured(LOAD, base=COPY)
    folder = grounds.folder / "flights"
    run_manage(("sample", "flights", "--out", str(folder)), {"RUN_DIR": str(folder / "run")})
    path = folder / "flights.csv"
    count = sum(1 for _ in path.open(encoding="utf-8")) - 1
    cluster: Cluster | None = None
    say(f"{LOAD.title}: {count:,} flights, {shards} shards")
    try:
        cluster = begin_cluster(grounds.postgres, grounds.valkey.url, shards=shards)
        await_cluster(cluster)
        for number in range(rounds):
            for side in (COPY, LOADED) if number % 2 == 0 else (LOADED, COPY):
                with metered(groups_of(grounds, cluster)) as usage:
                    seconds = (
                        copy_once(grounds.postgres, cluster.database, path)
                        if side is COPY
                        else load_once(grounds.postgres, cluster, path)
                    )
                cpu_us = usage.per_request_us(count)
                sample = replace(Sample(count, seconds, 0, 0), cpu_us=cpu_us)
                measured.samples.setdefault(side.format(shards), []).append(sample)
                say(f"  {number + 1}. {side.format(shards):24} {seconds:.2f} s")
    finally:
        if cluster is not None:
            end_cluster(cluster)
    return measured
