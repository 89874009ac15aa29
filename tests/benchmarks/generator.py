"""Our own load generator: a few connections in one process, timed to the microsecond.

Closed loop: every connection sends its next request when the answer to the last has come, which
is what ``wrk`` does too. Open loop: requests are due at a fixed rate whatever the server does, and
their latency counts from the moment they were *due*, so a stalled server makes every request
behind the stall late instead of hiding it (no coordinated omission).

It waits in ``select()``, whose timeout is in microseconds; epoll's, and so asyncio's, is in
milliseconds, which would blur what is measured here. Run as a process of its own: a job comes in
as JSON, the measurement goes out as JSON.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import httptools

from tests.benchmarks.figures import percentile
from tests.benchmarks.traffic import Traffic, renderer

RECEIVE_BYTES = 262_144
ANSWER_TIMEOUT_S = 10.0
WARM_S = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement."""

    traffic: Traffic
    connections: int
    seconds: float
    seed: int
    fresh_from: int
    rate: float | None = None  # requests a second; None is the closed loop


class AnswerLost(Exception):
    """The server closed a connection, or did not answer in time."""


class Connection:
    """One keep-alive connection with at most one request in flight."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self.began_s = 0.0
        self.is_busy = False
        self._complete = False
        self._status = 0
        self._open()

    def _open(self) -> None:
        self.socket = socket.create_connection(
            (self._traffic.host, self._traffic.port), timeout=ANSWER_TIMEOUT_S
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = httptools.HttpResponseParser(self)

    def fileno(self) -> int:
        """Return what select() takes."""
        return self.socket.fileno()

    def on_message_complete(self) -> None:
        """Note that the parser has seen a whole answer."""
        self._complete = True
        self._status = self._parser.get_status_code()
        self._keep = self._parser.should_keep_alive()

    def send(self, request: bytes, began_s: float) -> None:
        """Send a request whose latency counts from ``began_s``."""
        self.began_s = began_s
        self.is_busy = True
        self._complete = False
        self.socket.sendall(request)

    def receive(self) -> int:
        """Read what has come; return the answer's status, 0 while it is not whole.

        Raises:
            AnswerLost: The connection ended before the answer did.
        """
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise AnswerLost
        self._parser.feed_data(data)
        if not self._complete:
            return 0
        self.is_busy = False
        if not self._keep:
            self.reopen()
        return self._status

    def reopen(self) -> None:
        """Start again with a new connection."""
        self.socket.close()
        self.is_busy = False
        self._open()


class Load:
    """One run of a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._render = renderer(job.traffic, chance=Random(job.seed), fresh_from=job.fresh_from)
        self._connections = [Connection(job.traffic) for _ in range(job.connections)]
        self.latencies: list[float] = []
        self.errors = 0

    def run(self) -> dict[str, Any]:
        """Return what was measured."""
        loop: Callable[[float], None] = self._closed if self._job.rate is None else self._open
        self._closed(WARM_S)
        self.latencies, self.errors = [], 0
        began = time.perf_counter()
        loop(self._job.seconds)
        seconds = time.perf_counter() - began
        for connection in self._connections:
            connection.socket.close()
        if not self.latencies:
            raise SystemExit(f"no answer from {self._job.traffic.url}{self._job.traffic.path}")
        return {
            "requests": len(self.latencies),
            "seconds": seconds,
            "p50_us": percentile(self.latencies, 0.5) * 1e6,
            "p99_us": percentile(self.latencies, 0.99) * 1e6,
            "errors": self.errors,
        }

    def _closed(self, seconds: float) -> None:
        clock, render = time.perf_counter, self._render
        end = clock() + seconds
        for connection in self._connections:
            connection.send(render(), clock())
        busy = len(self._connections)
        while busy:
            for connection in self._ready(ANSWER_TIMEOUT_S):
                if not self._take(connection):
                    continue
                now = clock()
                if now < end:
                    connection.send(render(), now)
                else:
                    busy -= 1

    def _open(self, seconds: float) -> None:
        """Send what is due on whichever connection is free; what finds none waits its turn."""
        assert self._job.rate is not None
        clock, render, gap = time.perf_counter, self._render, 1 / self._job.rate
        free = deque(self._connections)
        began = clock()
        count, due, finished = int(seconds * self._job.rate), 0, 0
        while finished < count:
            now = clock()
            while free and due < count and began + due * gap <= now:
                free.popleft().send(render(), began + due * gap)
                due += 1
            wait = ANSWER_TIMEOUT_S
            if free and due < count:
                wait = max(began + due * gap - clock(), 0.0)
            for connection in self._ready(wait, idle=not any(True for _ in self._busy())):
                if self._take(connection):
                    finished += 1
                    free.append(connection)

    def _busy(self) -> Any:
        return (each for each in self._connections if each.is_busy)

    def _ready(self, wait_s: float, *, idle: bool = False) -> list[Connection]:
        if idle:
            time.sleep(wait_s)
            return []
        waiting = [each for each in self._connections if each.is_busy]
        readable, _, _ = select.select(waiting, (), (), wait_s)
        if not readable and wait_s >= ANSWER_TIMEOUT_S:
            raise SystemExit(f"no answer within {ANSWER_TIMEOUT_S:.0f} s")
        return readable

    def _take(self, connection: Connection) -> bool:
        """Receive; tell whether the request is over, well or badly."""
        try:
            status = connection.receive()
        except (AnswerLost, OSError, httptools.HttpParserError):
            self.errors += 1
            connection.reopen()
            return True
        if not status:
            return False
        self.latencies.append(time.perf_counter() - connection.began_s)
        if status >= 400:
            self.errors += 1
        return True


def main() -> None:
    """Run the job that standard input holds."""
    document = json.load(sys.stdin)
    document["traffic"] = Traffic.from_document(document["traffic"])
    sys.stdout.write(json.dumps(Load(Job(**document)).run()) + "\n")


if __name__ == "__main__":
    main()
