"""One child process: how it is started, known to be ready, and stopped with all it started.

Invariant: a child leads its own session, so a Ctrl-C reaches only the supervisor; it is told to
stop when its parent dies (Linux), so a killed supervisor leaves nothing behind; and its output
goes straight to its log file, so it never blocks on, or dies with, whoever reads that output.

Children are started from the main thread only: Linux counts the death of the starting *thread*.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.accounts import ServerAccount
from engine.errors import StartFailed
from engine.restarts import RestartPolicy

MARK = "SHARDPOINT_SUPERVISED_IN"  # in each child's environment: the run directory it belongs to
POLL_S = 0.02
LOG_TAIL_BYTES = 4_096
LOG_BYTES_MAX = 20_000_000
PR_SET_PDEATHSIG = 1

_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # loaded before any fork


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What to run and how to treat it."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None  # the whole environment; None = ours
    cwd: Path | None = None
    account: ServerAccount | None = None  # None = as ourselves
    ready: Callable[[], bool] | None = None  # quick, asked repeatedly; None = ready when started
    ready_timeout_s: float = 60.0
    before_start: Callable[[], None] | None = None  # runs before every start, restarts included
    retry_start: Callable[[str], bool] | None = None  # given the log's end: try again?
    critical: bool = True  # given up = the whole cluster stops
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    stop_signal: int = signal.SIGTERM
    stop_timeout_s: float = 15.0


class Child:
    """A process of ours, running or not."""

    def __init__(self, spec: ProcessSpec, *, log: Path, mark: str = "") -> None:
        self.spec = spec
        self.log = log
        self._mark = mark
        self._process: subprocess.Popen[bytes] | None = None
        self._group_gone = False
        self.started_at = 0.0
        self.log_from = 0  # where this run's output begins in the log

    @property
    def pid(self) -> int | None:
        """The process id of the current or last run."""
        return None if self._process is None else self._process.pid

    def is_running(self) -> bool:
        """Tell whether the process runs now (and reap it if it just ended)."""
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        """Return how the last run ended, None while it runs or before it ran."""
        return None if self._process is None else self._process.poll()

    def spawn(self) -> None:
        """Start the process; its output goes to the end of its log."""
        spec = self.spec
        if spec.before_start is not None:
            spec.before_start()
        env = dict(os.environ if spec.env is None else spec.env)
        env[MARK] = self._mark
        _rotate(self.log)
        with self.log.open("ab") as output:
            os.fchmod(output.fileno(), 0o600)
            self.log_from = output.tell()
            self._process = subprocess.Popen(
                list(spec.argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=spec.cwd,
                user=None if spec.account is None else spec.account.uid,
                group=None if spec.account is None else spec.account.gid,
                extra_groups=None if spec.account is None else [],
                start_new_session=True,
                preexec_fn=_die_with(os.getpid(), spec.stop_signal),
            )
        self._group_gone = False
        self.started_at = time.monotonic()

    def log_tail(self) -> str:
        """Return the end of what this run has written to its log."""
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(self.log_from, size - LOG_TAIL_BYTES, 0))
            return stream.read().decode(errors="replace")
        return ""

    def ask_to_stop(self) -> None:
        """Send the stop signal, if it runs."""
        if self.is_running() and self._process is not None:
            self._process.send_signal(self.spec.stop_signal)

    def wait_until_stopped(self, *, hurry: Callable[[], bool]) -> bool:
        """Wait for the process to end, kill its group when it does not; tell if it was clean."""
        deadline = time.monotonic() + self.spec.stop_timeout_s
        while self.is_running() and time.monotonic() < deadline and not hurry():
            time.sleep(POLL_S)
        clean = not self.is_running()
        self.kill_group()
        return clean

    def kill_group(self) -> None:
        """Kill the process and whatever of its group outlived it."""
        if self._process is None or self._group_gone:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._group_gone = True  # its number may be another group's by the next call


def start_alone(spec: ProcessSpec, *, log: Path) -> Child:
    """Start a process without a supervisor, wait until it is ready, and return it.

    One that does not get ready is stopped.

    Raises:
        StartFailed: As of ``wait_until_ready``.
    """
    child = Child(spec, log=log)
    child.spawn()
    try:
        wait_until_ready(child)
    except BaseException:
        stop([[child]])
        raise
    return child


def wait_until_ready(child: Child, *, check: Callable[[], None] = lambda: None) -> None:
    """Wait for a started child to be ready, starting it again where its spec allows that.

    Args:
        child: A child that was spawned.
        check: Called between two looks; may raise to give up waiting.

    Raises:
        StartFailed: It ended, or was not ready in time; the message ends with its log's end.
    """
    spec = child.spec
    deadline = time.monotonic() + spec.ready_timeout_s
    while True:
        check()
        if not child.is_running():
            retry = spec.retry_start is not None and spec.retry_start(child.log_tail())
            if not retry or time.monotonic() > deadline:
                code = child.exit_code()
                raise StartFailed(f"{spec.name} ended with {code}: {_why(child)}")
            time.sleep(POLL_S * 10)
            child.spawn()
        elif spec.ready is None or spec.ready():
            return
        elif time.monotonic() > deadline:
            raise StartFailed(
                f"{spec.name} was not ready after {spec.ready_timeout_s:g} s: {_why(child)}"
            )
        time.sleep(POLL_S)


def stop(
    waves: Sequence[Sequence[Child]], *, hurry: Callable[[], bool] = lambda: False
) -> list[str]:
    """Stop children wave by wave, last first; return the names that had to be killed.

    Args:
        waves: In the order they were started; those of one wave stop side by side.
        hurry: Asked repeatedly; once true, whatever still runs is killed.
    """
    killed = []
    for wave in reversed(waves):
        for child in wave:
            child.ask_to_stop()
        killed += [c.spec.name for c in wave if not c.wait_until_stopped(hurry=hurry)]
    return killed


def _why(child: Child) -> str:
    tail = child.log_tail().strip()
    return f"see {child.log}" + (f"\n{tail[-1500:]}" if tail else "")


def _rotate(log: Path) -> None:
    """Put a large log aside, so that restarts do not fill the disk."""
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))


def _die_with(parent: int, stop_signal: int) -> Callable[[], None] | None:
    """Return what makes a child receive its stop signal when its parent dies."""
    if _prctl is None:
        return None
    prctl = _prctl

    def ask_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, stop_signal)
        if os.getppid() != parent:  # it died before the kernel knew
            os.kill(os.getpid(), signal.SIGKILL)

    return ask_kernel
