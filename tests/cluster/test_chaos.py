"""The hot path under faults: real workers, real backends, kill -9, and every answer judged.

Invariants of the fault reference: an acknowledged write is there, once; a refused one is not; one
whose outcome is unknown is there once or not at all; a scatter is whole or a problem; all is well
again by itself.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from engine.postgres import EmbeddedPostgres
from engine.run_dir import RunDir
from engine.valkey import EmbeddedValkey
from tests.cluster.chaos import FIRST_ID, SEEDED, ChaosClient, Ledger, Said, person
from tests.cluster.clusters import Cluster, running_clusters, shard_tables
from tests.cluster.processes import await_true, children, holder_of, pid_of
from tests.cluster.raw_http import connect

SEED = 20261123
CLIENTS = 8
REQUESTS = 19_200
STEP_S = 300.0  # at most, between two faults: the machine may be busy
TABLE = "definitions_user"
HANG_UP_S = 15.0  # half of the deadline, which would end the statement too
WORKERS = {
    "FRONT_WORKERS": "2",
    "NODE_WORKERS": "2",
    # Each worker is replaced after so many requests, in the middle of everything.
    "GUNICORN_CMD_ARGS": "--max-requests 1500 --max-requests-jitter 300",
}


@dataclass(frozen=True, slots=True)
class Ground:
    """A cluster with servers of its own: a killed backend restarts all of a Postgres."""

    cluster: Cluster
    server: EmbeddedPostgres
    valkey: EmbeddedValkey

    def workers(self, process: str) -> list[int]:
        """Return the gunicorn workers of a process."""
        return children(pid_of(self.cluster.run_dir, process))

    def kill_worker(self, process: str) -> None:
        """Kill -9 the oldest worker."""
        os.kill(min(self.workers(process)), signal.SIGKILL)

    def tables(self) -> psycopg.Connection[Any]:
        """Return a connection past all guards."""
        return shard_tables(self.server, self.cluster)

    def stored(self) -> dict[int, list[dict[str, str]]]:
        """Return the rows of all shards by id."""
        found: dict[int, list[dict[str, str]]] = {}
        with self.tables() as connection:
            for number in range(self.cluster.shards):
                for bucketless in connection.execute(
                    f"SELECT to_jsonb(t) - 'bucket' FROM s{number + 1}.\"{TABLE}\" t"
                ):
                    row = {name: str(value) for name, value in bucketless[0].items()}
                    found.setdefault(int(row["id"]), []).append(row)
        return found


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """Return a cluster that may be broken, with seeded rows."""
    run_dir = RunDir(Path(tempfile.mkdtemp(prefix="spx-"))).create()
    server, valkey = EmbeddedPostgres(run_dir), EmbeddedValkey(run_dir)
    try:
        server.start()
        valkey.start()
        with running_clusters(server, valkey.url, 2, extra=WORKERS) as running:
            for row in SEEDED:
                assert running[2].post("/insert_user", **row).status_code == 200
            yield Ground(running[2], server, valkey)
    finally:
        valkey.stop()
        server.stop()
        run_dir.remove()


def _kill_backend(ground: Ground) -> None:
    """Kill -9 one backend that serves a shard; Postgres then restarts all of its own."""
    with ground.tables() as connection:
        (pid,) = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend' LIMIT 1"
        ).fetchone() or (0,)
    os.kill(pid, signal.SIGKILL)


def _reload(ground: Ground) -> None:
    os.kill(pid_of(ground.cluster.run_dir, "front"), signal.SIGHUP)


FAULTS: list[Callable[[Ground], None]] = [
    lambda ground: ground.kill_worker("front"),
    lambda ground: ground.kill_worker("node-s1"),
    _kill_backend,
    _reload,
    lambda ground: ground.kill_worker("node-s2"),
    lambda ground: ground.kill_worker("front"),
]


def _asked(ledger: Ledger, clients: list[Future[None]], least: int) -> Callable[[], bool]:
    return lambda: ledger.asked >= least or all(client.done() for client in clients)


def test_faults_cost_answers_but_never_truth(ground: Ground) -> None:
    """19,200 mixed requests of eight connections while workers and backends are killed, reloaded
    and recycled: no answer is wrong, no acknowledged write is missing or doubled, what was refused
    is absent, and all is well afterwards. The seed is in the module."""
    cluster = ground.cluster
    ledger = Ledger(cluster.get("/count_users").json()["value"])
    seen = {process: set(ground.workers(process)) for process in ("front", "node-s1", "node-s2")}
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [
            pool.submit(
                ChaosClient(
                    place=place, url=cluster.url, key=cluster.key, ledger=ledger, seed=SEED
                ).run,
                REQUESTS // CLIENTS,
            )
            for place in range(CLIENTS)
        ]
        for turn, fault in enumerate(FAULTS):
            due = REQUESTS * (turn + 1) // (len(FAULTS) + 2)
            await_true(_asked(ledger, clients, due), patience_s=STEP_S)
            fault(ground)
    _await_health(cluster)

    assert ledger.wrong == []
    assert ledger.asked >= REQUESTS * 0.95
    assert ledger.problems  # else nothing was broken
    for process, before in seen.items():
        assert before - set(ground.workers(process)), f"no worker of {process} has ended"
    assert not seen["front"] & set(ground.workers("front"))
    _check_rows(ground, ledger)


def _await_health(cluster: Cluster) -> None:
    """Wait until every way is open again, then ask each of them often: nothing fails any more."""

    def is_well() -> bool:
        asked = [_get(cluster, f"/get_user?id={row['id']}") for row in SEEDED]
        return {*asked, _get(cluster, "/count_users")} == {200}

    await_true(is_well, patience_s=STEP_S)
    assert all(is_well() for _ in range(5))


def _get(cluster: Cluster, path: str, key: str = "") -> int:
    who = {"Authorization": f"Bearer {key or cluster.key}"}
    try:  # each on a connection of its own, and so on any worker
        return requests.get(cluster.url + path, headers=who, timeout=20).status_code
    except (requests.ConnectionError, requests.Timeout):
        return 0


def _check_rows(ground: Ground, ledger: Ledger) -> None:
    """Compare what clients were told with what is stored, and with what a walk gives."""
    stored = ground.stored()
    seeded = {int(row["id"]): row for row in SEEDED}
    written = {number: rows for number, rows in stored.items() if number >= FIRST_ID}
    walked = ground.cluster.walk("/get_user", limit=97)

    assert {number: [row] for number, row in seeded.items()} == {
        number: stored.get(number) for number in seeded
    }
    assert ledger.numbers(Said.DONE) - set(written) == set()
    assert ledger.numbers(Said.REFUSED) & set(written) == set()
    assert set(written) - set(ledger.said) == set()
    assert {number: [person(number)] for number in written} == written
    assert sorted(int(row["id"]) for row in walked) == sorted(stored)
    assert len(stored) == ground.cluster.get("/count_users").json()["value"]


# -- one write, and a kill -9 in the middle of it -------------------------------------------------


HELD = "Heldland"  # who writes a row of it waits, where a test wants that
LOCK = 590_000
MOMENTS = {
    "write": "CREATE TRIGGER hold BEFORE INSERT ON {table} FOR EACH ROW",
    "commit": "CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON {table}"
    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
}


@contextmanager
def _held(ground: Ground, moment: str) -> Iterator[Callable[[], None]]:
    """Have whoever inserts a row of Heldland wait before the write, or before its commit, until
    this ends or is let go; however busy the machine is, no limit on waiting ends that."""
    schemas = [f"s{shard + 1}" for shard in range(ground.cluster.shards)]
    with ground.tables() as connection:
        for schema in schemas:
            connection.execute(
                f"CREATE FUNCTION {schema}.hold() RETURNS trigger LANGUAGE plpgsql"
                " SECURITY DEFINER SET lock_timeout = 0 AS"
                f" 'BEGIN PERFORM pg_advisory_xact_lock_shared({LOCK}); RETURN NEW; END'"
            )
            connection.execute(
                MOMENTS[moment].format(table=f'{schema}."{TABLE}"')
                + f" WHEN (NEW.country = '{HELD}') EXECUTE FUNCTION {schema}.hold()"
            )
        connection.execute(f"SELECT pg_advisory_lock({LOCK})")

        def let_go() -> None:
            connection.execute("SELECT pg_advisory_unlock_all()")

        try:
            yield let_go
        finally:
            let_go()
            for schema in schemas:
                connection.execute(f"DROP FUNCTION {schema}.hold() CASCADE")


def _await_writer(ground: Ground, writing: Future[requests.Response | None]) -> int:
    """Wait until a backend waits for the held row; return the node worker that it works for."""
    ports: list[int] = []

    def is_waiting() -> bool:
        if writing.done():
            reply = writing.result()
            raise AssertionError(f"not held, but ended: {reply.text if reply else reply}")
        with ground.tables() as connection:
            found = connection.execute(
                "SELECT client_port FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            ).fetchall()
        ports.extend(port for (port,) in found)
        return bool(ports)

    await_true(is_waiting)
    return holder_of(ports[0], [*ground.workers("node-s1"), *ground.workers("node-s2")])


def _insert(ground: Ground, row: dict[str, str], key: str = "") -> requests.Response | None:
    """Insert on a connection of its own; None if that ended without an answer."""
    headers = {"Authorization": f"Bearer {ground.cluster.key}", "Shardpoint-Timeout-Ms": "30000"}
    if key:
        headers["Idempotency-Key"] = key
    try:
        return requests.post(
            ground.cluster.url + "/insert_user", json=row, headers=headers, timeout=40
        )
    except requests.ConnectionError:
        return None


@pytest.mark.parametrize("key", ["", "killed-node"])
def test_a_node_killed_while_it_writes(ground: Ground, key: str) -> None:
    """The dispatcher sends the write again under the same key, the client's or its own: it is
    answered as done, and there is one row, whether the first try was committed or not."""
    number = 59_000_000 + len(key)
    row = person(number, country=HELD)
    with ThreadPoolExecutor(1) as pool:
        with _held(ground, "write"):
            writing = pool.submit(_insert, ground, row, key)
            os.kill(_await_writer(ground, writing), signal.SIGKILL)
        reply = writing.result()
    _await_health(ground.cluster)

    assert reply is not None
    assert (reply.status_code, reply.json()) == (200, row), reply.text
    assert ground.stored()[number] == [row]


def test_a_dispatcher_killed_while_it_writes(ground: Ground) -> None:
    """Its client sees the connection end; the same request again is a replay of what the shard
    did, and there is one row."""
    number = 59_500_000
    row = person(number, country=HELD)
    with ThreadPoolExecutor(1) as pool:
        with _held(ground, "write"):
            writing = pool.submit(_insert, ground, row, "killed-front")
            _await_writer(ground, writing)
            for pid in ground.workers("front"):
                os.kill(pid, signal.SIGKILL)
            first = writing.result()
        await_true(lambda: number in ground.stored())
    _await_health(ground.cluster)
    again = _insert(ground, row, "killed-front")

    assert first is None
    assert again is not None
    assert (again.status_code, again.json()) == (200, row), again.text
    assert again.headers["Idempotency-Replayed"] == "true"
    assert ground.stored()[number] == [row]


# -- and at each step of it -----------------------------------------------------------------------

STEPS = [
    ("node", "before-the-commit"),
    ("front", "before-the-commit"),
    ("node", "after-the-commit"),
    ("front", "after-the-answer"),
]


def _answered(ground: Ground) -> float:
    """Return how many inserts the nodes have answered."""
    name = 'shardpoint_calls_total{endpoint="insert_user",status="2xx",code="ok"} '
    found = 0.0
    for url in ground.cluster.shard_urls:
        lines = ground.cluster.request("GET", "/metrics", base=url).text.splitlines()
        found += sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))
    return found


@pytest.mark.parametrize(("victim", "step"), STEPS)
def test_killed_at_each_step_a_write_happens_once(ground: Ground, victim: str, step: str) -> None:
    """Before its commit, after its commit with the answer unsent, and with the answer arrived at a
    front that never reads it: there is one row, and the same request again is a replay."""
    number = 59_600_000 + STEPS.index((victim, step))
    row = person(number, country=HELD)
    key = f"{victim}-{step}"
    with ThreadPoolExecutor(1) as pool:
        with _held(ground, "commit") as release:
            before = _answered(ground)
            writing = pool.submit(_insert, ground, row, key)
            worker = _await_writer(ground, writing)
            victims = [worker] if victim == "node" else ground.workers("front")
            if step.startswith("after"):
                for pid in victims:
                    os.kill(pid, signal.SIGSTOP)  # so that it can neither send nor read
                release()
                await_true(lambda: number in ground.stored())
                if victim == "front":
                    await_true(lambda: _answered(ground) > before)
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
        first = writing.result()
    if step == "before-the-commit":  # its backend goes on, whoever has died
        await_true(lambda: number in ground.stored())
    _await_health(ground.cluster)
    again = _insert(ground, row, key)

    assert (first is None) is (victim == "front")
    for reply in (first, again) if first is not None else (again,):
        assert reply is not None
        assert (reply.status_code, reply.json()) == (200, row), reply.text
    assert again is not None
    assert again.headers["Idempotency-Replayed"] == "true"
    assert ground.stored()[number] == [row]


# -- without Redis --------------------------------------------------------------------------------


def test_without_redis_data_is_served_and_limits_hold(ground: Ground) -> None:
    """While it is away reads, scatters, writes and their repeats are answered as ever, and a
    limited key gets no more than its limit; when it is back the workers count together again."""
    made = json.loads(
        ground.cluster.manage(
            *("key", "create", "--owner", "limited", "--scope", "*", "--json"),
            *("--rate", "40", "--window-s", "3600", "--burst", "40"),
        ).stdout
    )
    key = str((made if isinstance(made, dict) else made[0])["key"])
    row = person(59_700_000)
    _await_health(ground.cluster)
    ground.valkey.stop()
    try:

        def alone() -> bool:
            _get(ground.cluster, "/get_user?id=1", key)  # else nobody has to ask Redis
            return _told(ground, "quota.counting-alone") >= 2  # both workers

        await_true(alone)
        statuses = [_get(ground.cluster, "/get_user?id=1", key) for _ in range(60)]
        _await_health(ground.cluster)
        replies = [_insert(ground, row, "no-redis") for _ in range(2)]
    finally:
        ground.valkey.start()

    assert {200, 429} >= set(statuses)
    assert statuses[-1] == 429
    assert statuses.count(200) <= 40
    assert [(200, row), (200, row)] == [
        (r.status_code, r.json()) for r in replies if r is not None
    ]
    assert ground.stored()[59_700_000] == [row]

    def together() -> bool:
        _get(ground.cluster, "/get_user?id=1", key)  # else nobody has to ask
        return _told(ground, "quota.counting-together") > 0

    await_true(together)


def _told(ground: Ground, what: str) -> int:
    """Return how often the front's log says so."""
    return (ground.cluster.run_dir / "logs" / "front.log").read_text().count(what)


# -- a client that hangs up -----------------------------------------------------------------------


@contextmanager
def _locked_table(ground: Ground) -> Iterator[None]:
    """Lock the users of every shard: whoever reads them waits until this ends."""
    with ground.tables() as connection, connection.transaction(force_rollback=True):
        for shard in range(ground.cluster.shards):
            connection.execute(f'LOCK TABLE s{shard + 1}."{TABLE}" IN ACCESS EXCLUSIVE MODE')
        yield


def _waiting(ground: Ground) -> int:
    """Return how many statements wait for a lock."""
    with ground.tables() as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'"
        ).fetchone() or (0,)
    return int(count)


@pytest.mark.parametrize("place", ["front", "node"])
@pytest.mark.parametrize("path", ["/get_user?country=Seededland", "/count_users"])
def test_when_its_client_hangs_up_a_statement_ends(ground: Ground, place: str, path: str) -> None:
    """Long before the deadline and while what it waits for is still held: a backend works for
    nobody who has gone, at the front and at a node called directly."""
    cluster = ground.cluster
    url = cluster.url if place == "front" else cluster.shard_urls[0]
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {cluster.key}"]
    part = {"Prefer": "partial"} if place == "node" else {}  # which one node alone is
    lines += [f"{name}: {value}" for name, value in part.items()]
    request = "\r\n".join([*lines, "Shardpoint-Timeout-Ms: 30000", "", ""]).encode()
    with _locked_table(ground):
        with connect(url) as peer:
            peer.sendall(request)
            await_true(lambda: _waiting(ground) == (cluster.shards if place == "front" else 1))
        await_true(lambda: _waiting(ground) == 0, patience_s=HANG_UP_S)
    after = cluster.request("GET", path, base=url, headers=part)

    assert after.status_code == 200
