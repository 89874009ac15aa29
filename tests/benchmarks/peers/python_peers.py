"""Django REST framework, django-ninja and FastAPI, on the plain table.

As many worker processes as the machine has cores. gunicorn's threads and the pools are what their
documentation suggests for such a machine; every connection to Postgres is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
from psycopg.conninfo import conninfo_to_dict

from engine.ports import LOOPBACK, free_port
from tests.benchmarks import rows
from tests.benchmarks.contenders import Contender, HttpContender
from tests.benchmarks.drivers import find_wrk
from tests.benchmarks.grounds import Grounds
from tests.benchmarks.peers.places import SITES, PeerPlaces
from tests.benchmarks.peers.serving import served
from tests.benchmarks.traffic import Traffic
from tests.benchmarks.walking import Ask, NextPage

THREADS = 8
_LAST_ID = re.compile(rb'"id": ?(\d+)')
JSON_BODY = (("Content-Type", "application/json"),)


def workers() -> int:
    """Return how many processes a peer may run: one per core."""
    return psutil.cpu_count() or 1


def insert_body(id_as: str) -> str:
    """Return the JSON of a new item; the id is a number or a text."""
    members = {
        "id": "<fresh>",
        "category": rows.FRESH_CATEGORY,
        "name": rows.FRESH_NAME,
        "price": rows.FRESH_PRICE,
        "stock": rows.FRESH_STOCK,
        "note": rows.FRESH_NOTE,
    }
    text = json.dumps(members)
    return text if id_as == "text" else text.replace('"<fresh>"', "<fresh>", 1)


def traffic_under(port: int, prefix: str) -> dict[str, Traffic]:
    """Return the requests of every workload to one of the Python peers."""

    def read(path: str) -> Traffic:
        return Traffic(LOOPBACK, port, prefix + path)

    return {
        "point": read("/items/<key>"),
        "list": read(f"/items?category=<category>&limit={rows.LIST_ROWS}"),
        "group": read("/count"),
        "walk": read(f"/after?after=0&limit={rows.PAGE_ROWS}"),
        "insert": Traffic(
            LOOPBACK, port, f"{prefix}/items", "POST", JSON_BODY, insert_body("number")
        ),
    }


def rows_of(document: Any) -> list[Mapping[str, Any]]:
    """Return the rows of an answer that is a list of rows, or one row."""
    return document if isinstance(document, list) else [document]


def next_under(prefix: str) -> NextPage:
    """Return how a walk goes on: after the last id of a page, until a page is empty."""

    def next_page(body: bytes, number: int) -> Ask | None:
        found = _LAST_ID.findall(body[-600:])
        if not found:
            return None
        return Ask(f"{prefix}/after?after={found[-1].decode()}&limit={rows.PAGE_ROWS}")

    return next_page


def _contender(name: str, port: int, prefix: str, pid: int, grounds: Grounds) -> Contender:
    groups = {"server": [pid], "postgres": grounds.postgres_roots()}
    return HttpContender(
        name, traffic_under(port, prefix), groups, rows_of, find_wrk(), next_under(prefix)
    )


@contextlib.contextmanager
def django_peers(grounds: Grounds, places: PeerPlaces) -> Iterator[list[Contender]]:
    """Run one Django site under gunicorn that answers as DRF and as django-ninja."""
    known = conninfo_to_dict(grounds.plain_dsn)
    names = {"host": "HOST", "port": "PORT", "dbname": "NAME", "user": "USER"}
    environment = {f"PEER_DB_{env}": str(known[name]) for name, env in names.items()}
    environment["PEER_DB_PASSWORD"] = str(known.get("password", ""))
    port = free_port()
    command = [
        str(places.python() / "gunicorn"), "django_site.wsgi:application",
        "--worker-class", "gthread", "--workers", str(workers()), "--threads", str(THREADS),
        "--keep-alive", "75", "--no-control-socket", "--bind", f"{LOOPBACK}:{port}",
    ]  # fmt: skip
    with _python_server(command, port, grounds, environment) as pid:
        yield [
            _contender("Django + DRF", port, "/drf", pid, grounds),
            _contender("django-ninja", port, "/ninja", pid, grounds),
        ]


@contextlib.contextmanager
def fastapi_peer(grounds: Grounds, places: PeerPlaces) -> Iterator[list[Contender]]:
    """Run FastAPI under uvicorn, on uvloop and httptools."""
    port = free_port()
    command = [
        str(places.python() / "uvicorn"), "fast_site:app", "--workers", str(workers()),
        "--loop", "uvloop", "--http", "httptools", "--no-access-log",
        "--host", LOOPBACK, "--port", str(port),
    ]  # fmt: skip
    with _python_server(command, port, grounds, {"PEER_DSN": grounds.plain_dsn}) as pid:
        yield [_contender("FastAPI + asyncpg", port, "", pid, grounds)]


def _python_server(
    command: list[str], port: int, grounds: Grounds, environment: dict[str, str]
) -> contextlib.AbstractContextManager[int]:
    # Ours would be found first: the settings module and the path of this process are not theirs.
    clean = {"DJANGO_SETTINGS_MODULE": "django_site.settings", "PYTHONPATH": os.fspath(SITES)}
    log = grounds.folder / f"peer-{port}.log"
    return served(command, port=port, folder=SITES, log=log, environment=clean | environment)
