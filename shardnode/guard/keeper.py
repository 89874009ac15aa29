"""Keeps a worker's knowledge of its shard current: ownership, keyring, enrolment.

One thread reads the shard's own row each second, and at once when a request met a mismatch; the
16384 bucket rows are read again only when the row says that they changed. Readers take the latest
whole state without waiting. While Postgres cannot be read the last state stays in force: writes
are checked by Postgres anyway, and reads of a bucket that moved away are bounded by
``blind_s_max``, after which everything is refused.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from modeldefs.wire.problems import Problem, ShardUnavailable
from shardnode.guard.ownership import OwnershipView, Verdict, refusal
from shardnode.storage.meta import ShardMeta, read_bucket_facts, read_meta

logger = logging.getLogger(__name__)

POLL_S = 1.0
BLIND_S_MAX = 15.0
CONNECT_TIMEOUT_S = 3
STATEMENT_TIMEOUT_MS = 3_000


@dataclass(frozen=True, slots=True)
class KnownState:
    """One whole state of the shard and when it was read, by the monotonic clock."""

    meta: ShardMeta
    view: OwnershipView
    read_at: float


class Keeper:
    """The current state of this shard, for one worker process."""

    def __init__(
        self,
        dsn: str,
        *,
        poll_s: float = POLL_S,
        blind_s_max: float = BLIND_S_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dsn = dsn
        self._poll_s = poll_s
        self._blind_s_max = blind_s_max
        self._clock = clock
        self._connection: psycopg.Connection[Any] | None = None
        self._state: KnownState | None = None
        self._reading = threading.Lock()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._listeners: list[Callable[[KnownState], None]] = []
        self._watchers: list[Callable[[KnownState], None]] = []

    def start(self) -> None:
        """Read the state once, then keep it current in a thread of its own.

        Raises:
            psycopg.Error: Postgres cannot be read; a node does not start blind.
        """
        self.refresh()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and close its connection."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=CONNECT_TIMEOUT_S + STATEMENT_TIMEOUT_MS / 1000)
        with self._reading:
            self._close()

    def on_change(self, listener: Callable[[KnownState], None]) -> None:
        """Call a listener, in the keeper's thread, after each change of the state."""
        self._listeners.append(listener)

    def on_reading(self, watcher: Callable[[KnownState], None]) -> None:
        """Call a watcher after each reading of the state, changed or not, by whoever read it."""
        self._watchers.append(watcher)

    @property
    def state(self) -> KnownState:
        """The latest state.

        Raises:
            ShardUnavailable: It was never read, or is older than ``blind_s_max``.
        """
        state = self._state
        if state is None or self._clock() - state.read_at > self._blind_s_max:
            raise ShardUnavailable("This node cannot read what its shard owns.")
        return state

    @property
    def stamp(self) -> object:
        """Another object after every change of what is owned."""
        state = self._state
        return None if state is None else state.view

    def check(self, bucket: int, epoch: int | None) -> None:
        """Refuse a call for a bucket that is not owned here at that epoch.

        Raises:
            WrongShard: Another shard owns it; the problem names it where known.
            StaleEpoch: Caller and node know different maps; either is refreshing now.
        """
        view = self.state.view
        if view.owns(bucket, epoch):
            return
        self._judge(view, view.verdict(bucket, epoch), bucket)

    def check_map(self, epoch: int) -> None:
        """Refuse a scatter made by a map under which this shard owned other buckets.

        Raises:
            StaleEpoch: Refresh the map and ask again.
        """
        view = self.state.view
        self._judge(view, view.map_verdict(epoch), None)

    def refresh_soon(self) -> None:
        """Have the state read again at once, without waiting for it."""
        self._wake.set()

    def refresh(self) -> KnownState:
        """Read the state now and return it; one reader at a time."""
        with self._reading:
            before = self._state
            state = self._read(before)
            self._state = state
        if before is None or before.meta != state.meta:
            for listener in self._listeners:
                listener(state)
        for watcher in self._watchers:
            watcher(state)
        return state

    def _judge(self, view: OwnershipView, verdict: Verdict, bucket: int | None) -> None:
        problem: Problem | None = refusal(view, verdict, bucket)
        if problem is None:
            return
        if verdict is not Verdict.CALLER_STALE:
            self.refresh_soon()
        raise problem

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.wait(self._poll_s)
            self._wake.clear()
            if self._stopped.is_set():
                return
            try:
                self.refresh()
            except (psycopg.Error, RuntimeError) as fault:
                logger.warning("guard.unreadable", extra={"reason": type(fault).__name__})
                self._stopped.wait(self._poll_s / 4)

    def _read(self, before: KnownState | None) -> KnownState:
        try:
            connection = self._connected()
            with connection.transaction():
                # One snapshot, so that row and buckets belong together.
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                read_at = self._clock()
                meta = read_meta(connection)
                if before is not None and before.meta.changes == meta.changes:
                    return KnownState(meta, before.view, read_at)
                view = OwnershipView.of(
                    read_bucket_facts(connection),
                    shard=meta.shard_name,
                    map_epoch=meta.map_epoch,
                    standalone=meta.standalone,
                )
            return KnownState(meta, view, read_at)
        except psycopg.Error:
            self._close()
            raise

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._dsn,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                options=f"-c statement_timeout={STATEMENT_TIMEOUT_MS}",
                application_name="shardnode keeper",
            )
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
