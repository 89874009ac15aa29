"""One supervisor per run directory; its processes neither stay away nor stay behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from engine import leftovers
from engine.cleaning import clean
from engine.postgres import EmbeddedPostgres
from engine.processes import MARK
from engine.run_dir import RunDir
from engine.supervisor import stop_running, supervisor_pid

PROJECT = Path(__file__).parents[3]
PATIENCE_S = 20.0


class Cluster:
    """A supervisor in a process of its own, and what it tells."""

    def __init__(self, run_dir: RunDir, kind: str) -> None:
        self.run_dir = run_dir
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.engine.supervise", str(run_dir.path), kind],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, text: str) -> str:
        """Return the next line told that contains the text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return line
        raise AssertionError(f"ended before it told {text!r}")

    def end(self) -> tuple[int, str]:
        """Return the exit code and what was told since the last look."""
        told, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, told


def eventually(question: Callable[[], bool]) -> bool:
    """Tell whether the answer becomes yes within the test's patience."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if question():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """Return a new run directory."""
    return RunDir(tmp_path / "run").create()


@pytest.fixture
def open_run_dir() -> Iterator[RunDir]:
    """Return a new run directory with a short path that a server's account can reach."""
    folder = Path(tempfile.mkdtemp(prefix="sps-"))
    folder.chmod(0o755)
    run_dir = RunDir(folder / "run").create()
    yield run_dir
    stop_running(run_dir)
    run_dir.remove()
    folder.rmdir()


@pytest.fixture
def launch(run_dir: RunDir) -> Iterator[Callable[[str], Cluster]]:
    """Return what starts a cluster; whatever still runs afterwards is killed."""
    clusters: list[Cluster] = []

    def start(kind: str) -> Cluster:
        clusters.append(Cluster(run_dir, kind))
        return clusters[-1]

    yield start
    for cluster in clusters:
        cluster.process.kill()
        cluster.process.communicate()
    leftovers.clean_up(run_dir)


Launch = Callable[[str], Cluster]


def test_a_crashed_process_is_started_again(launch: Launch, run_dir: RunDir) -> None:
    """A kill -9 of a process costs its restart delay, not the cluster."""
    cluster = launch("steady")
    cluster.wait_for("up")
    first = leftovers.running(run_dir)["steady"]
    os.kill(first, signal.SIGKILL)
    told = cluster.wait_for("was started again")
    second = leftovers.running(run_dir)["steady"]

    assert second != first
    assert told.split()[-1] == str(second)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(launch: Launch, run_dir: RunDir, number: int) -> None:
    """Ctrl-C, a terminal closed, or a kill end all processes and their own children."""
    cluster = launch("steady")
    cluster.wait_for("up")
    assert eventually(lambda: len(leftovers.marked(str(run_dir.path))) == 2)
    cluster.process.send_signal(number)

    assert cluster.end()[0] == 0
    assert leftovers.marked(str(run_dir.path)) == []
    assert list((run_dir.path / "pids").iterdir()) == []


def test_a_signal_while_preparing_unwinds_and_stops(launch: Launch, run_dir: RunDir) -> None:
    """Ctrl-C need not wait for the sample data; what was started is stopped."""
    cluster = launch("preparing")
    cluster.wait_for("up")
    cluster.process.send_signal(signal.SIGINT)

    assert cluster.end() == (0, "stopping\n")
    assert leftovers.marked(str(run_dir.path)) == []


def test_cleaning_stops_the_cluster_and_deletes_its_data(launch: Launch, run_dir: RunDir) -> None:
    """After cleaning there is neither process nor folder; cleaning again finds nothing."""
    cluster = launch("steady")
    cluster.wait_for("up")

    assert clean(run_dir) is True
    assert cluster.end()[0] == 0
    assert not run_dir.path.exists()
    assert clean(run_dir) is False


def test_a_process_that_will_not_stop_is_killed(launch: Launch, run_dir: RunDir) -> None:
    """A process deaf to SIGTERM delays the stop by its timeout and is named."""
    cluster = launch("stubborn")
    cluster.wait_for("up")
    cluster.process.terminate()

    assert cluster.end() == (0, "stopping\nstubborn did not stop in time and was killed\n")
    assert leftovers.marked(str(run_dir.path)) == []


def test_a_critical_process_given_up_stops_the_cluster(launch: Launch, run_dir: RunDir) -> None:
    """When a critical process keeps ending, the supervisor says so and fails."""
    cluster = launch("broken")
    cluster.wait_for("up")
    assert eventually((run_dir.path / "ran-once").exists)
    os.kill(leftovers.running(run_dir)["broken"], signal.SIGKILL)
    cluster.wait_for("4 times in a row")

    assert cluster.end()[0] == 1


def test_a_second_supervisor_is_refused(launch: Launch, run_dir: RunDir) -> None:
    """Two supervisors never share a run directory, and the first is not disturbed."""
    first = launch("steady")
    first.wait_for("up")
    second = launch("steady")

    assert second.end() == (3, "refused\n")
    assert supervisor_pid(run_dir) == first.process.pid


def test_a_cluster_is_stopped_from_another_shell(launch: Launch, run_dir: RunDir) -> None:
    """Stopping finds the supervisor by its lock, waits for its end, and may be repeated."""
    cluster = launch("steady")
    cluster.wait_for("up")

    assert stop_running(run_dir) is True
    assert cluster.end()[0] == 0
    assert stop_running(run_dir) is False


def test_a_killed_supervisor_leaves_nothing(launch: Launch, run_dir: RunDir) -> None:
    """After kill -9 of the supervisor its processes are told to stop, and the next one starts."""
    first = launch("steady")
    first.wait_for("up")
    orphan = leftovers.running(run_dir)["steady"]
    first.process.kill()
    first.end()
    assert eventually(lambda: leftovers.born(orphan) == "")
    second = launch("steady")
    second.wait_for("up")

    assert len(leftovers.running(run_dir)) == 1
    assert stop_running(run_dir) is True
    assert leftovers.marked(str(run_dir.path)) == []


def test_leftovers_are_recognised_before_they_are_stopped(run_dir: RunDir) -> None:
    """A pid that meanwhile belongs to another process is left alone; a marked stray is not."""
    ours = {**os.environ, MARK: str(run_dir.path)}
    stray = subprocess.Popen(["sleep", "600"], env=ours)
    stranger = subprocess.Popen(["sleep", "600"])
    note = run_dir.pid_path("front")
    note.write_text(f"{stranger.pid}\nanother birth\n{signal.SIGTERM.value}\n")
    try:
        assert eventually(lambda: leftovers.marked(str(run_dir.path)) == [stray.pid])
        found = leftovers.clean_up(run_dir)

        assert found == [f"pid {stray.pid}"]
        assert stray.wait(PATIENCE_S) == -signal.SIGTERM
        assert stranger.poll() is None
        assert not note.exists()
    finally:
        stranger.kill()
        stranger.wait()
        stray.kill()
        stray.wait()


def test_killed_servers_come_back_with_their_data(open_run_dir: RunDir) -> None:
    """A kill -9 of Postgres, then of the supervisor, loses no committed row."""
    first = Cluster(open_run_dir, "servers")
    first.wait_for("up")
    server = EmbeddedPostgres(open_run_dir)
    with closing(psycopg.connect(server.admin_dsn, autocommit=True)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(leftovers.running(open_run_dir)["postgres"], signal.SIGKILL)
    first.wait_for("postgres was started again")
    assert eventually(server.is_ready)
    first.process.kill()
    first.end()
    second = Cluster(open_run_dir, "servers")
    second.wait_for("up")
    with closing(psycopg.connect(server.admin_dsn)) as connection:
        row = connection.execute("SELECT answer FROM kept").fetchone()
    stop_running(open_run_dir)

    assert row == (42,)
    assert second.end()[0] == 0
    assert server.running_pid() is None
