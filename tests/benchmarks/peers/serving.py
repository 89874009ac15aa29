"""Running a peer's server for as long as it is measured."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from engine.ports import LOOPBACK
from tests.benchmarks.peers.places import PeerMissing

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.1


@contextlib.contextmanager
def served(
    command: Sequence[str], *, port: int, folder: Path, log: Path, environment: Mapping[str, str]
) -> Iterator[int]:
    """Run a server until the block ends; yield its pid once the port takes connections.

    Raises:
        PeerMissing: It ended, or does not listen in time; the message has its last words.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_port(process, port, log)
        yield process.pid
    finally:
        _stop(process)


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end_s = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((LOOPBACK, port), timeout=1).close()
            return
        if process.poll() is not None or time.monotonic() > end_s:
            words = log.read_text(encoding="utf-8", errors="replace").strip()[-300:]
            raise PeerMissing(f"its server does not start: {words}")
        time.sleep(POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: the workers of some servers outlive their parent."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
