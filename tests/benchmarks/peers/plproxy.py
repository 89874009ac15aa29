"""PL/Proxy: functions that run on the shard, called over SQL; our nearest ancestor.

Debian builds it for its own Postgres, so it runs on a server of that version, with a router
database and one with the rows, and pgbench calls the proxies. There is no HTTP in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from engine.binaries import SYSTEM_POSTGRES
from engine.postgres import EmbeddedPostgres, PostgresSettings
from engine.run_dir import RunDir
from tests.benchmarks import rows
from tests.benchmarks.contenders import PGBENCH_SCRIPTS, Contender, PgbenchContender
from tests.benchmarks.drivers import find_pgbench
from tests.benchmarks.grounds import Grounds, fill_plain
from tests.benchmarks.peers.places import SITES, PeerMissing, PeerPlaces

NAME = "PL/Proxy (SQL)"
CONNECTS = (
    "every stretch begins with a new connection from each of its backends to the data, whose cost"
    " is counted; longer stretches (--seconds) make it small."
)
ROUTER, DATA = "router", "data"
SCRIPTS = {
    "point": f"\\set key random(1, {rows.ROWS})\nSELECT * FROM get_item(:key);\n",
    "list": f"\\set category random({rows.FIRST_CATEGORY}, {rows.LAST_CATEGORY})\n"
    "SELECT * FROM items_in(:category);\n",
    "insert": PGBENCH_SCRIPTS["insert"].split("INSERT")[0]
    + f"SELECT insert_item(:id, '{rows.FRESH_CATEGORY}', '{rows.FRESH_NAME}',"
    f" {rows.FRESH_PRICE}, {rows.FRESH_STOCK}, '{rows.FRESH_NOTE}');\n",
}


def _programs() -> str:
    """Return the bin folder of a system Postgres that has PL/Proxy."""
    found = sorted(SYSTEM_POSTGRES.glob("*/lib/plproxy.so"), reverse=True)
    if not found:
        raise PeerMissing("no system Postgres has PL/Proxy (Debian: postgresql-15-plproxy)")
    return str(found[0].parent.parent / "bin")


def _start(server: EmbeddedPostgres) -> None:
    before = os.environ.get("SHARDPOINT_PG_BIN")
    os.environ["SHARDPOINT_PG_BIN"] = _programs()
    try:
        server.start()
    finally:
        os.environ.pop("SHARDPOINT_PG_BIN")
        if before is not None:
            os.environ["SHARDPOINT_PG_BIN"] = before


def _fill(server: EmbeddedPostgres) -> None:
    server.ensure_database(ROUTER)
    server.ensure_database(DATA)
    fill_plain(server.dsn(DATA))
    with psycopg.connect(server.dsn(DATA), autocommit=True) as connection:
        connection.execute((SITES / "plproxy_data.sql").read_bytes())
    known = conninfo_to_dict(server.dsn(DATA))
    place = f"dbname={DATA} host={known['host']} port={known['port']}"
    with psycopg.connect(server.dsn(ROUTER), autocommit=True) as connection:
        connection.execute((SITES / "plproxy_router.sql").read_bytes())
        connection.execute(
            sql.SQL("CREATE SERVER items FOREIGN DATA WRAPPER plproxy OPTIONS (p0 {})").format(
                sql.Literal(place)
            )
        )
        connection.execute(
            sql.SQL(
                "CREATE USER MAPPING FOR CURRENT_USER SERVER items OPTIONS (user {}, password {})"
            ).format(sql.Literal(known["user"]), sql.Literal(known["password"]))
        )


@contextlib.contextmanager
def plproxy_peer(grounds: Grounds, places: PeerPlaces) -> Iterator[list[Contender]]:
    """Run a Postgres with a router and one partition."""
    pgbench = find_pgbench()
    if pgbench is None:
        raise PeerMissing("pgbench, which would call it, was not found")
    _programs()
    run_dir = RunDir(grounds.folder / "plproxy").create()
    server = EmbeddedPostgres(run_dir, settings=PostgresSettings(connections_max=300))
    try:
        _start(server)
        _fill(server)
        pid = server.running_pid()
        groups = {"postgres": [pid] if pid else []}
        yield [PgbenchContender(NAME, pgbench, server.dsn(ROUTER), groups, SCRIPTS, [CONNECTS])]
    finally:
        server.stop()
