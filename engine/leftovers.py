"""Processes of a supervisor that was killed: found by what they are, then stopped.

Invariant: a process is only ever signalled after it was recognised, by its start time beside its
pid or by the mark in its environment; a pid alone may have become somebody else's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from engine.processes import MARK
from engine.run_dir import RunDir, write_private

STOP_TIMEOUT_S = 20.0
POLL_S = 0.05


def born(pid: int) -> str:
    """Return when a process started, in its system's own terms; "" if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    command = ["/bin/ps", "-o", "lstart=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return shown.stdout.strip()


def write_pid_file(run_dir: RunDir, name: str, pid: int, stop_signal: int) -> None:
    """Note a running process: its pid, when it was born, how it likes to be stopped."""
    write_private(run_dir.pid_path(name), f"{pid}\n{born(pid)}\n{int(stop_signal)}\n")


def running(run_dir: RunDir) -> dict[str, int]:
    """Return name and pid of every process with a pid file that still runs."""
    return {name: pid for name, (pid, _) in _noted(run_dir).items()}


def clean_up(run_dir: RunDir) -> list[str]:
    """Stop whatever a killed supervisor of this run directory left; return what was found.

    Call it while holding the supervisor's lock.
    """
    noted = _noted(run_dir)
    for pid, stop_signal in noted.values():
        _send(pid, stop_signal)
    _wait_until_gone([pid for pid, _ in noted.values()])
    strays = marked(str(run_dir.path))
    for pid in strays:
        _send(pid, signal.SIGTERM)
    _wait_until_gone(strays)
    for path in (run_dir.path / "pids").glob("*.pid"):
        path.unlink(missing_ok=True)
    return [*noted, *(f"pid {pid}" for pid in strays)]


def marked(mark: str) -> list[int]:
    """Return the pids of processes started, at any depth, for this run directory (Linux)."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with contextlib.suppress(OSError):
            if pid != os.getpid() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def _noted(run_dir: RunDir) -> dict[str, tuple[int, int]]:
    """Return pid and stop signal of every noted process that is still the same one."""
    found = {}
    for path in sorted((run_dir.path / "pids").glob("*.pid")):
        with contextlib.suppress(OSError, ValueError):
            pid, birth, stop_signal = path.read_text(encoding="utf-8").split("\n")[:3]
            if birth and born(int(pid)) == birth:
                found[path.stem] = (int(pid), int(stop_signal))
    return found


def _wait_until_gone(pids: list[int]) -> None:
    """Wait for processes to end, and kill those that do not in time."""
    births = {pid: birth for pid in pids if (birth := born(pid))}
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while births and time.monotonic() < deadline:
        births = {pid: birth for pid, birth in births.items() if born(pid) == birth}
        time.sleep(POLL_S if births else 0)
    for pid in births:
        _send(pid, signal.SIGKILL)
    while any(born(pid) == birth for pid, birth in births.items()):
        time.sleep(POLL_S)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
