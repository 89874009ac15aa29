"""Whole clusters for tests, started as a user starts them: ``manage.py dev``, real processes.

All clusters of a session share the session's Postgres and Valkey servers, each in databases of its
own, so that eight shards cost eight nodes and not eight servers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import requests

from engine.databases import PostgresServer
from engine.ports import free_port
from engine.run_dir import RunDir

PROJECT = Path(__file__).resolve().parent.parent.parent
START_TIMEOUT_S = 240.0  # for each process; all together get twice that
POLL_S = 0.1
PARTIAL = {"Prefer": "partial"}  # a node called directly gives its part to nobody else
_places = itertools.cycle(range(1, 16))


@dataclass(slots=True)
class Cluster:
    """A running cluster."""

    shards: int
    run_dir: Path
    process: subprocess.Popen[bytes]
    database: str
    url: str = ""
    key: str = ""
    shard_urls: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    session: requests.Session = field(default_factory=requests.Session)

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request with the cluster's key."""
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        base = options.pop("base", self.url)
        options.setdefault("timeout", 40)
        return self.session.request(method, base + path, headers=headers, **options)

    def get(self, path: str, **params: Any) -> requests.Response:
        """GET a data endpoint."""
        return self.request("GET", path, params=params)

    def post(self, path: str, **members: Any) -> requests.Response:
        """POST a JSON body to a data endpoint."""
        return self.request("POST", path, json=members)

    def walk(self, path: str, *, limit: int, **params: Any) -> list[dict[str, Any]]:
        """Return the rows of all pages."""
        rows: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            answer = self.get(path, limit=limit, **params, **after)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            rows += page["items"]
            if page["next"] is None:
                return rows
            after = {"after": page["next"]}

    def manage(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``manage.py`` against this cluster, as from another shell."""
        return run_manage(words, {"RUN_DIR": str(self.run_dir)}, check=check)


def run_manage(
    words: tuple[str, ...], extra: Mapping[str, str], *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run one ``manage.py`` command to its end."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / "manage.py"), *words],
        env=clean_environment() | dict(extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr + done.stdout
    return done


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what names the test session's own databases."""
    gone = ("DATABASE_URL", "REDIS_URL", "RUN_DIR", "DJANGO_SETTINGS_MODULE", "PORT", "SHARDS")
    return {name: value for name, value in os.environ.items() if name not in gone}


def begin_cluster(
    server: PostgresServer,
    redis_url: str,
    *,
    shards: int,
    extra: Mapping[str, str] | None = None,
) -> Cluster:
    """Start a cluster's processes; ``await_cluster`` waits until it answers."""
    run_dir = Path(tempfile.mkdtemp(prefix=f"spc{shards}-"))
    shutil.rmtree(run_dir)
    tag = f"{run_dir.name.replace('-', '_')}".lower()
    for name in (f"reg_{tag}", f"sh_{tag}"):
        server.ensure_database(name)
    place = next(_places)  # a Valkey database of its own, so that queues do not mix
    environment = clean_environment() | {
        "RUN_DIR": str(run_dir),
        "PORT": str(free_port()),
        "SHARDS": str(shards),
        "SAMPLES": "0",
        "START_TIMEOUT_S": str(int(START_TIMEOUT_S)),  # the machine may be busy
        "DATABASE_URL": server.dsn(f"reg_{tag}"),
        "SHARD_URLS": ";".join([server.dsn(f"sh_{tag}")] * shards),
        "REDIS_URL": redis_url.rsplit("/", 1)[0] + f"/{place}",
        **(extra or {}),
    }
    log = tempfile.NamedTemporaryFile(  # noqa: SIM115 - the process writes to it as long as it runs
        prefix="spc-", suffix=".log", delete=False
    )
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "manage.py"), "dev"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    cluster = Cluster(shards, run_dir, process, f"sh_{tag}")
    cluster.values["log"] = log.name
    return cluster


def await_cluster(cluster: Cluster) -> Cluster:
    """Wait until a cluster has written its cluster.env, which it does once it answers."""
    path = cluster.run_dir / "cluster.env"
    end_s = time.monotonic() + 2 * START_TIMEOUT_S
    while not path.exists():
        log = Path(cluster.values["log"])
        assert cluster.process.poll() is None, log.read_text()
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(POLL_S)
    for line in path.read_text().splitlines():
        name, _, value = line.partition("=")
        cluster.values[name] = shlex.split(value)[0]
    cluster.url = cluster.values["SHARDPOINT_URL"]
    cluster.key = cluster.values["SHARDPOINT_KEY"]
    cluster.shard_urls = cluster.values["SHARDPOINT_SHARD_URLS"].split(";")
    return cluster


def end_cluster(cluster: Cluster) -> None:
    """Stop a cluster and remove its folder."""
    cluster.session.close()
    if cluster.process.poll() is None:
        cluster.process.send_signal(signal.SIGTERM)
    try:
        cluster.process.wait(60)
    except subprocess.TimeoutExpired:
        cluster.process.kill()
        cluster.process.wait()
    RunDir(cluster.run_dir).remove()
    with contextlib.suppress(FileNotFoundError):
        Path(cluster.values["log"]).unlink()


@contextlib.contextmanager
def running_clusters(
    server: PostgresServer, redis_url: str, *sizes: int, extra: Mapping[str, str] | None = None
) -> Iterator[dict[int, Cluster]]:
    """Run clusters of these numbers of shards, two starting at a time."""
    clusters: dict[int, Cluster] = {}
    try:
        for size in sizes:
            clusters[size] = begin_cluster(server, redis_url, shards=size, extra=extra)
            await_cluster(clusters[size])
        yield clusters
    finally:
        for cluster in clusters.values():
            end_cluster(cluster)


def shard_tables(server: PostgresServer, cluster: Cluster) -> psycopg.Connection[Any]:
    """Return a superuser's connection to the database of a cluster's shards, past their guards."""
    connection = psycopg.connect(server.dsn(cluster.database), autocommit=True)
    connection.execute("SELECT set_config('sp.load', 'on', false)")
    return connection
