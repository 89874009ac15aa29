"""Sending parts to the shard nodes: a few at a time to each, and none lost or applied twice.

Every shard has its own threads and a short queue, so memory is bounded by the queues, and a slow
shard slows the reading instead of filling it up. A part whose fate is unknown (the node went away,
the answer did not come) is sent again under its number until the node says what became of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Queue
from typing import Any, Protocol

from dispatcher_site.loading.blocks import Block
from dispatcher_site.loading.errors import LoadStopped, NodeUnreachable
from dispatcher_site.loading.rows import Row
from dispatcher_site.loading.splitting import Body, Routes
from modeldefs.wire.problems import Problem

QUEUE_PARTS_MAX = 2
PATIENCE_S = 60.0
CLOSING_S = 5.0
WAIT_MS_FIRST = 100
WAIT_MS_MAX = 2_000


class NodeRows(Protocol):
    """What a load asks of a shard node; ``NodeClient`` is one."""

    def load_rows(
        self,
        model: str,
        *,
        load: str,
        part: int,
        body: bytes,
        on_conflict: str,
        columns: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Apply a part once and return what became of its rows."""


@dataclass(frozen=True, slots=True)
class Part:
    """One shard's share of a block, on its way."""

    block: Block
    shard: str
    body: Body
    load: str
    on_conflict: str
    routes: Routes
    rows: tuple[Row, ...] | None = None  # only where they are not the shard's rows of the block


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on trying while a node does not answer."""

    patience_s: float = PATIENCE_S
    clock: Callable[[], float] = time.monotonic
    stop: threading.Event = field(default_factory=threading.Event)

    def insist(self, act: Callable[[], dict[str, Any]], shard: str) -> dict[str, Any]:
        """Act, again and again while the node cannot answer, and return its answer.

        Raises:
            NodeUnreachable: The patience is over.
            Problem: The node refused for a reason that waiting does not cure.
        """
        gives_up_s = self.clock() + self.patience_s
        wait_ms = WAIT_MS_FIRST
        while True:
            try:
                return act()
            except Problem as refusal:
                if not refusal.retryable or refusal.code in ("wrong-shard", "stale-epoch"):
                    raise
                reason = f"{refusal.code}: {refusal.detail}"
            except OSError as fault:
                reason = str(fault)
            if self.clock() >= gives_up_s:
                raise NodeUnreachable(f"shard {shard} did not answer: {reason}")
            if self.stop.wait(wait_ms / 1000):
                raise LoadStopped("the load was stopped")
            wait_ms = min(WAIT_MS_MAX, wait_ms * 2)


class PartSenders:
    """Threads that hand parts to a function; one thread per shard keeps the parts in order."""

    def __init__(self, send: Callable[[Part], None], *, per_shard: int) -> None:
        self.stop = threading.Event()
        self._send = send
        self._per_shard = per_shard
        self._failure: BaseException | None = None
        self._queues: dict[str, Queue[Part | None]] = {}
        self._threads: list[threading.Thread] = []

    def submit(self, part: Part) -> None:
        """Hand over a part; waits while the shard's queue is full. Raises what a thread raised."""
        self.check()
        if part.shard not in self._queues:
            self._begin(part.shard)
        self._queues[part.shard].put(part)

    def check(self) -> None:
        """Raise the first failure of a thread, if there was one."""
        if self._failure is not None:
            raise self._failure

    def drain(self) -> None:
        """Wait until everything handed over is done; raises what a thread raised."""
        for queue in self._queues.values():
            queue.join()
        self.check()

    def close(self) -> None:
        """Stop the threads: queued parts are dropped, those being sent get a little time."""
        self.stop.set()
        for queue in self._queues.values():
            for _ in range(self._per_shard):
                queue.put(None)
        for thread in self._threads:
            thread.join(timeout=CLOSING_S)

    def _begin(self, shard: str) -> None:
        queue: Queue[Part | None] = Queue(QUEUE_PARTS_MAX)
        self._queues[shard] = queue
        for _ in range(self._per_shard):
            thread = threading.Thread(
                target=self._serve, args=(queue,), name=f"load-{shard}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self, queue: Queue[Part | None]) -> None:
        while True:
            part = queue.get()
            try:
                if part is None:
                    return
                # After a failure the queue is emptied without sending, so nobody waits for ever.
                if self._failure is None and not self.stop.is_set():
                    self._send(part)
            except BaseException as failure:
                # Not lost: the thread that reads the file raises it.
                self._failure = self._failure or failure
                self.stop.set()
            finally:
                queue.task_done()
