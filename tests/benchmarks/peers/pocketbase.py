"""PocketBase: one Go process with SQLite inside, with its own defaults.

Its default commits without an fsync (`synchronous=NORMAL` in WAL mode), and the shipped program
offers no switch for it: what it acknowledges may be lost with the power. Its inserts are reported
all the same, and the report says so.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.ports import LOOPBACK, free_port
from tests.benchmarks import rows
from tests.benchmarks.contenders import Contender, HttpContender
from tests.benchmarks.drivers import find_wrk
from tests.benchmarks.grounds import Grounds
from tests.benchmarks.peers.places import SITES, PeerMissing, PeerPlaces
from tests.benchmarks.peers.python_peers import JSON_BODY, insert_body
from tests.benchmarks.peers.serving import served
from tests.benchmarks.traffic import Traffic
from tests.benchmarks.walking import Ask

NAME = "PocketBase"
NOT_DURABLE = "its inserts are acknowledged without an fsync, which is its default."
MIGRATIONS = SITES / "pocketbase" / "migrations"
SETUP_TIMEOUT_S = 60
RECORDS = "/api/collections/item/records"
_ID = re.compile(rb'"id":"')


def _fill(program: str, data: Path) -> None:
    """Make the collections, then put the rows in, in the order of their ids."""
    done = subprocess.run(
        [program, "migrate", "up", "--dir", str(data), "--migrationsDir", str(MIGRATIONS)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SETUP_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise PeerMissing(f"its migration failed: {(done.stdout + done.stderr).strip()[-300:]}")
    with contextlib.closing(sqlite3.connect(data / "data.db")) as connection:
        connection.executemany(
            f"INSERT INTO item ({', '.join(rows.COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?)",
            ((str(row.id), *row[1:3], float(row.price), *row[4:]) for row in rows.items()),
        )
        connection.commit()
        connection.execute("PRAGMA optimize")


def _traffic(port: int) -> dict[str, Traffic]:
    def read(path: str) -> Traffic:
        return Traffic(LOOPBACK, port, path)

    listed = f"{RECORDS}?filter=category%3D%27<category>%27&sort=@rowid&skipTotal=1"
    return {
        "point": read(f"{RECORDS}/<key>"),
        "list": read(f"{listed}&perPage={rows.LIST_ROWS}"),
        "group": read(
            f"/api/collections/item_count/records?perPage={rows.CATEGORIES}&skipTotal=1"
        ),
        "walk": read(_page(1)),
        "insert": Traffic(LOOPBACK, port, RECORDS, "POST", JSON_BODY, insert_body("text")),
    }


def _page(number: int) -> str:
    return f"{RECORDS}?page={number}&perPage={rows.PAGE_ROWS}&sort=@rowid&skipTotal=1"


def next_page(body: bytes, number: int) -> Ask | None:
    """Return the request for the page after this one: PocketBase pages by number."""
    is_last = len(_ID.findall(body)) < rows.PAGE_ROWS
    return None if is_last else Ask(_page(number + 1))


def rows_of(document: Any) -> list[Mapping[str, Any]]:
    """Return the rows of a list or the one record."""
    return list(document["items"]) if "items" in document and "page" in document else [document]


@contextlib.contextmanager
def pocketbase_peer(grounds: Grounds, places: PeerPlaces) -> Iterator[list[Contender]]:
    """Run PocketBase on a data folder of its own."""
    program, data, port = str(places.python() / "pocketbase"), grounds.folder / "pb", free_port()
    _fill(program, data)
    command = [
        program, "serve", "--http", f"{LOOPBACK}:{port}", "--dir", str(data),
        "--migrationsDir", str(MIGRATIONS), "--automigrate=0",
    ]  # fmt: skip
    log = grounds.folder / "pocketbase.log"
    with served(command, port=port, folder=grounds.folder, log=log, environment={}) as pid:
        groups = {"server": [pid]}
        yield [
            HttpContender(
                NAME, _traffic(port), groups, rows_of, find_wrk(), next_page, [NOT_DURABLE]
            )
        ]
