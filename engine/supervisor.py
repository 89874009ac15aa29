"""Starts the cluster's processes, keeps them running, and stops them all together.

Invariant: at most one supervisor holds a run directory (a file lock, so a killed one lets go),
and none of its processes outlives it: they stop in reverse order when it stops, by the kernel's
word when it is killed, and at the latest when the next one starts.

Used from the main thread, as a context::

    with Supervisor(run_dir) as supervisor:
        supervisor.start(postgres.process_spec(), valkey.process_spec())
        ...                                       # prepare; SIGINT or SIGTERM unwinds the block
        supervisor.start(*node_specs)
        supervisor.start(front_spec)
        return supervisor.run()                   # until a signal, or a critical process fails
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from engine.errors import AlreadyRunning, EngineError, StopFailed
from engine.leftovers import born, clean_up, write_pid_file
from engine.processes import Child, ProcessSpec, stop, wait_until_ready
from engine.restarts import after_exit
from engine.run_dir import RunDir
from engine.tails import LogEcho

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HURRY_AFTER_S = 2.0  # make and a process group may both pass on one and the same Ctrl-C
LOOP_S = 0.1


class StopAsked(SystemExit):
    """A signal asked to stop while the cluster was being prepared; unwinds like a clean exit."""


class Supervisor:
    """The one parent of a cluster's processes."""

    def __init__(
        self,
        run_dir: RunDir,
        *,
        say: Callable[[str], None] | None = None,
        echo: Callable[[str], None] | None = None,
    ) -> None:
        """Args:
        say: Gets one line per event worth telling; standard error by default.
        echo: Gets every line of every log, `name | line`; nothing by default.
        """
        self._run_dir = run_dir
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
        self._echo = LogEcho(echo) if echo else None
        self._waves: list[list[Child]] = []
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}  # ended processes and when they start again
        self._asked_at: float | None = None
        self._hurry = False
        self._shielded = 0
        self._lock: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Supervisor:
        """Take the run directory and stop what a killed supervisor left in it.

        Raises:
            AlreadyRunning: Another supervisor holds it.
        """
        self._run_dir.create()
        self._lock = _take_lock(self._run_dir)
        try:
            for number in STOP_SIGNALS:
                self._handlers[number] = signal.signal(number, self._on_signal)
            for name in clean_up(self._run_dir):
                self._say(f"stopped {name}, left by a supervisor that was killed")
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop every process, last started first, and let the run directory go."""
        self._shielded += 1  # from here on a signal hurries, it does not unwind
        self._say("stopping")
        try:
            self.stop_all()
        finally:
            self._let_go()

    def start(self, *specs: ProcessSpec) -> None:
        """Start processes side by side and return when all of them are ready.

        Raises:
            StartFailed: One ended or was not ready in time. Leave the block: the rest is stopped.
        """
        wave: list[Child] = []
        self._waves.append(wave)
        for spec in specs:
            log = self._run_dir.log_path(spec.name)
            child = Child(spec, log=log, mark=str(self._run_dir.path))
            if self._echo:
                self._echo.follow(spec.name, log)
            with self._shield():
                wave.append(child)
                self._spawn(child)
        for child in wave:
            with self._shield():  # it may start the child again
                wait_until_ready(child, check=self._while_waiting)
                self._note(child)

    def run(self) -> int:
        """Keep every process running until a signal asks to stop; return the exit code.

        Returns:
            0 after SIGINT, SIGTERM or SIGHUP; 1 when a critical process was given up.
        """
        with self._shield(unwind=False):
            while self._asked_at is None:
                if not all(self._look_after(child) for child in self._children()):
                    return 1
                self._pump()
                time.sleep(LOOP_S)
        return 0

    def pids(self) -> dict[str, int]:
        """Return name and pid of every process that runs now."""
        return {c.spec.name: c.pid for c in self._children() if c.is_running() and c.pid}

    def stop_all(self) -> None:
        """Stop every process, last started first; kill what does not stop in its time."""
        for name in stop(self._waves, hurry=lambda: self._hurry):
            self._say(f"{name} did not stop in time and was killed")
        for child in self._children():
            self._run_dir.pid_path(child.spec.name).unlink(missing_ok=True)
        self._pump()
        self._waves.clear()
        self._due.clear()

    def _children(self) -> list[Child]:
        return [child for wave in self._waves for child in wave]

    def _look_after(self, child: Child) -> bool:
        """Start a child again when it ended and its time has come; False = give up the cluster."""
        name = child.spec.name
        now = time.monotonic()
        if name not in self._due:
            if child.is_running():
                return True
            child.kill_group()
            return self._ended(child, f"ended with {child.exit_code()}", now)
        if now < self._due[name]:
            return True
        del self._due[name]
        try:
            self._spawn(child)
        except (OSError, EngineError) as error:
            return self._ended(child, f"did not start: {error}", now)
        self._say(f"{name} was started again, pid {child.pid}")
        return True

    def _ended(self, child: Child, what: str, now: float) -> bool:
        """Decide when an ended child starts again; False if the cluster must stop."""
        name = child.spec.name
        decision = after_exit(
            child.spec.restart,
            failures=self._failures.get(name, 0),
            started_at=child.started_at,
            ended_at=now,
        )
        self._failures[name] = decision.failures
        if decision.at is None:
            self._say(f"{name} {what}, {decision.failures} times in a row: see {child.log}")
            self._due[name] = float("inf")
            return not child.spec.critical
        self._due[name] = decision.at
        self._say(f"{name} {what}; starting it again in {decision.at - now:.1f} s")
        return True

    def _spawn(self, child: Child) -> None:
        child.spawn()
        self._note(child)

    def _note(self, child: Child) -> None:
        if child.pid is not None:
            write_pid_file(self._run_dir, child.spec.name, child.pid, child.spec.stop_signal)

    def _while_waiting(self) -> None:
        self._pump()
        if self._asked_at is not None:
            raise StopAsked(0)

    def _pump(self) -> None:
        if self._echo:
            self._echo.pump()

    @contextlib.contextmanager
    def _shield(self, *, unwind: bool = True) -> Iterator[None]:
        """Note signals instead of unwinding at once; unwind at the end, unless told not to."""
        self._shielded += 1
        try:
            yield
        finally:
            self._shielded -= 1
        if unwind and self._asked_at is not None and not self._shielded:
            raise StopAsked(0)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked_at is not None:
            self._hurry = self._hurry or now - self._asked_at >= HURRY_AFTER_S
            return
        self._asked_at = now  # not told here: a handler must not write to a stream in use
        if not self._shielded:
            raise StopAsked(0)

    def _let_go(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def supervisor_pid(run_dir: RunDir) -> int | None:
    """Return the pid of the supervisor that holds this run directory, None if nobody does."""
    try:
        lock = os.open(run_dir.path / "supervisor.lock", os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, _, birth = os.pread(lock, 100, 0).decode().strip().partition(" ")
        known = pid.isdigit() and born(int(pid)) == birth
        return int(pid) if known else None
    else:
        return None
    finally:
        os.close(lock)


def stop_running(run_dir: RunDir, *, timeout_s: float = 120.0) -> bool:
    """Stop the cluster of this run directory from another process; tell whether one ran.

    Leftovers of a killed supervisor are stopped too.

    Raises:
        StopFailed: It was asked and still runs after ``timeout_s``.
    """
    if not run_dir.exists:
        return False
    deadline = time.monotonic() + timeout_s
    asked: int | None = None
    while True:
        try:
            lock = _take_lock(run_dir)
            break
        except AlreadyRunning:
            pid = supervisor_pid(run_dir)
        if pid is not None and pid != asked:
            asked = pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if time.monotonic() > deadline:
            raise StopFailed(f"the supervisor (pid {asked}) of {run_dir.path} does not stop")
        time.sleep(LOOP_S)
    try:
        return bool(clean_up(run_dir)) or asked is not None
    finally:
        os.close(lock)


def _take_lock(run_dir: RunDir) -> int:
    """Lock the run directory and write down who holds it."""
    lock = os.open(run_dir.path / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AlreadyRunning(
            f"a cluster already runs in {run_dir.path}: `make down` stops it,"
            " another RUN_DIR and PORT let a second one run beside it"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} {born(os.getpid())}\n".encode(), 0)
    return lock
