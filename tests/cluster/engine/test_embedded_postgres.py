"""The embedded Postgres keeps its data through crashes and starts wherever we are allowed to."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from engine.accounts import server_account
from engine.binaries import find_postgres
from engine.errors import StartFailed
from engine.leftovers import born
from engine.postgres import EmbeddedPostgres, PostgresSettings
from engine.run_dir import RunDir

QUICK = PostgresSettings(shared_buffers_mb=16, connections_max=20)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a new folder with a short path; what is in it is removed."""
    path = Path(tempfile.mkdtemp(prefix="spe-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def make(folder: Path) -> Iterator[Callable[[], EmbeddedPostgres]]:
    """Return what gives a handle on one and the same server; it is stopped afterwards."""
    run_dir = RunDir(folder / "run").create()
    handles: list[EmbeddedPostgres] = []

    def handle() -> EmbeddedPostgres:
        handles.append(EmbeddedPostgres(run_dir, settings=QUICK))
        return handles[-1]

    yield handle
    for server in handles:
        server.stop()


Make = Callable[[], EmbeddedPostgres]


def ask(server: EmbeddedPostgres, statement: str) -> object:
    """Run one statement, committed, and return the first value of its answer."""
    with closing(psycopg.connect(server.admin_dsn, autocommit=True)) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def test_settings_are_the_promised_ones(make: Make) -> None:
    """The server is ready for moves and cross-shard commits, and listens on loopback only."""
    server = make()
    server.start()
    names = ("listen_addresses", "wal_level", "max_prepared_transactions", "password_encryption")
    shown = {name: ask(server, f"SHOW {name}") for name in names}
    trusting = ask(server, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust'")

    assert shown == {
        "listen_addresses": "127.0.0.1",
        "wal_level": "logical",
        "max_prepared_transactions": "200",
        "password_encryption": "scram-sha-256",
    }
    assert trusting == 0


def test_a_login_needs_the_password_on_tcp_and_socket(make: Make) -> None:
    """Neither way in is open to who does not know the password."""
    server = make()
    server.start()
    socket = f"host={server.socket_folder} port={server.port} dbname=postgres user=shardpoint"
    for target in (server.dsn(user="shardpoint", password="guess"), f"{socket} password=guess"):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(target)


def test_a_second_start_continues_with_the_server_and_its_data(make: Make) -> None:
    """Starting what runs changes nothing; stopping and starting again keeps every row."""
    first = make()
    first.start()
    ask(first, "CREATE TABLE kept AS SELECT 42 AS answer")
    pid = first.running_pid()
    second = make()
    second.start()
    assert second.running_pid() == pid
    first.stop()
    assert first.running_pid() is None
    third = make()
    third.start()

    assert ask(third, "SELECT answer FROM kept") == 42


def test_kill_9_of_the_server_loses_no_committed_row(make: Make) -> None:
    """After kill -9 the next start waits for the dead server's children and recovers."""
    server = make()
    server.start()
    ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    pid = server.running_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    again = make()
    again.start()

    assert ask(again, "SELECT answer FROM kept") == 42
    assert again.running_pid() != pid


def test_a_pid_file_naming_another_program_does_not_keep_it_from_starting(make: Make) -> None:
    """After a reboot the old pid may be anybody's; the server starts nevertheless."""
    server = make()
    server.start()
    path = Path(str(ask(server, "SHOW data_directory"))) / "postmaster.pid"
    kept = path.read_text()
    server.stop()
    path.write_text(f"{os.getpid()}\n" + kept.partition("\n")[2])
    server.start()

    assert server.is_ready()


def test_stop_leaves_no_process(make: Make) -> None:
    """Once stopped, the server and its own children are gone."""
    server = make()
    server.start()
    with closing(psycopg.connect(server.admin_dsn)) as connection:
        backend = connection.info.backend_pid
        server.stop()

    assert born(backend) == ""
    assert server.running_pid() is None


def test_it_starts_below_a_closed_folder(folder: Path) -> None:
    """RUN_DIR may lie in a home that the server's account cannot enter; removing takes all."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    run_dir = RunDir(home / "run").create()
    server = EmbeddedPostgres(run_dir, settings=QUICK)
    server.start()
    data = Path(str(ask(server, "SHOW data_directory")))
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (home, data)]
    server.stop()
    run_dir.remove()

    assert modes == [0o700, 0o700]
    assert not data.exists()
    assert not run_dir.path.exists()


def test_a_long_path_falls_back_to_tcp(folder: Path) -> None:
    """A socket path over the system's 107 bytes is not used at all."""
    run_dir = RunDir(folder / ("long" * 25) / "run").create()

    assert EmbeddedPostgres(run_dir).socket_folder is None


def test_a_start_that_cannot_succeed_says_why(folder: Path) -> None:
    """A wrong setting fails at once, with the server's own words."""
    run_dir = RunDir(folder / "wrong").create()
    settings = PostgresSettings(more={"wal_level": "everything"})
    with pytest.raises(StartFailed, match="wal_level"):
        EmbeddedPostgres(run_dir, settings=settings).start()


def test_an_ordinary_user_runs_it_too(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without root, the server runs as the user and everything lies in RUN_DIR."""
    account = server_account()
    programs = find_postgres(account, copies=folder)
    monkeypatch.setenv("SHARDPOINT_PG_BIN", str(programs.folder))
    warm = make()  # loads every module while we may still read them all
    warm.start()
    warm.stop()
    uid, gid = (account.uid, account.gid) if account else (os.getuid(), os.getgid())
    place = folder / "theirs"
    place.mkdir(mode=0o700)
    os.chown(place, uid, gid)

    told = as_user(uid, gid, lambda: start_and_describe(RunDir(place / "run").create()))

    assert told == f"42 True {uid} 0o700"


def start_and_describe(run_dir: RunDir) -> str:
    """Start a server, and tell an answer, whether data lie in the run directory, whose, how."""
    server = EmbeddedPostgres(run_dir, settings=QUICK)
    try:
        server.start()
        data = Path(str(ask(server, "SHOW data_directory")))
        inside = data == run_dir.path / "pg" / "data"
        mode = oct(stat.S_IMODE(run_dir.path.stat().st_mode))
        return f"{ask(server, 'SELECT 42')} {inside} {data.stat().st_uid} {mode}"
    finally:
        server.stop()


def as_user(uid: int, gid: int, work: Callable[[], str]) -> str:
    """Return what the work returns in a child process that gave up root for good."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([]) if os.geteuid() == 0 else None
            os.setgid(gid)
            os.setuid(uid)
            answer = work()
        except BaseException as error:
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return answer
