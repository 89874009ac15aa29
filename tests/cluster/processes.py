"""The processes of a running cluster: which they are, what they hold, and waiting for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 30.0
POLL_S = 0.05


def await_true(condition: Callable[[], bool], *, patience_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds, for as long as a cluster may take to heal."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(POLL_S)


def pid_of(run_dir: Path, process: str) -> int:
    """Return the process id of a process that the supervisor runs, by its name."""
    return int((run_dir / "pids" / f"{process}.pid").read_text().split()[0])


def parents() -> dict[int, int]:
    """Return the parent of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(entry.name)] = int(fields[1])
    return found


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that run: the workers of a gunicorn."""
    return [child for child, parent in parents().items() if parent == pid]


def family(pid: int) -> list[int]:
    """Return a process and all below it, children first."""
    return [member for child in children(pid) for member in family(child)] + [pid]


def holder_of(port: int, pids: list[int]) -> int:
    """Return which of these processes has the socket that is bound to a local port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port}
    for pid in pids:
        links = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        if links & {f"socket:[{inode}]" for inode in inodes if inode != "0"}:
            return pid
    raise AssertionError(f"none of {pids} holds port {port}")


def descriptors_of(pids: list[int]) -> int:
    """Return how many files and sockets processes hold open."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
