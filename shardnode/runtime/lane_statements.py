"""A statement on its way down a lane, the batch it shares a transaction with, and their bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg import pq

from shardnode.runtime.sqlstates import CONNECTION_LOST

# What a pool of lanes counts; ``reads`` are point reads, of which several become one statement.
LANE_COLUMNS = (
    "statements", "syncs", "reads", "reconnects", "waited", "refused", "in_flight_now",
    "waiting_now",
)  # fmt: skip
STATEMENTS, SYNCS, READS, RECONNECTS, WAITED, REFUSED, IN_FLIGHT_NOW, WAITING_NOW = range(8)


class LaneError(NamedTuple):
    """Why a statement has no result."""

    sqlstate: str
    message: str
    was_sent: bool = True  # False: it surely did nothing
    constraint: str = ""  # by which it was refused


Done = Callable[[Any, LaneError | None], None]


class LaneStatement:
    """One statement on its way."""

    __slots__ = (
        "cancelled", "cancelled_at", "deadline", "done", "error", "name", "params",
        "prepared_as", "result", "sql", "tries",
    )  # fmt: skip

    def __init__(
        self, name: bytes, sql: bytes, params: Sequence[bytes | None], deadline: float, done: Done
    ) -> None:
        self.name, self.sql, self.params = name, sql, params
        self.deadline, self.done = deadline, done
        self.prepared_as = b""
        self.tries = 0
        self.cancelled = False
        self.cancelled_at = 0.0
        self.result: Any = None
        self.error: LaneError | None = None

    def give_up(self) -> None:
        """Let it be cancelled when it runs: nobody waits for it any more."""
        self.deadline = 0.0


class LaneBatch:
    """The statements between two Syncs: one transaction."""

    __slots__ = ("again", "held", "is_broken")

    def __init__(self) -> None:
        self.held: list[LaneStatement] = []  # done, if the Sync says so
        self.again: list[LaneStatement] = []  # they failed for another one's fault
        self.is_broken = False


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Bounds of a lane, with their units."""

    in_flight_max: int = 256
    waiting_max: int = 1_024  # calls of a pool that wait for room on a lane
    wait_s: float = 0.25  # at most, and at most a quarter of what is left of their time
    batch_max: int = 64  # statements that share a Sync
    tries_max: int = 4
    reconnect_first_s: float = 0.05
    reconnect_max_s: float = 2.0
    cancel_grace_s: float = 0.05
    watch_s: float = 0.05
    unanswered_s: float = 1.0  # a cancel that has no effect for so long: the backend hangs
    prepared_max: int = 1_000  # statements that a connection keeps prepared
    connect_timeout_s: int = 5
    open_patience_s: float = 5.0  # how long a server that is just coming back is waited for


def error_of(result: Any) -> LaneError:
    """Return why a result is none."""
    sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE)
    constraint = result.error_field(pq.DiagnosticField.CONSTRAINT_NAME)
    return LaneError(
        sqlstate.decode() if sqlstate else CONNECTION_LOST,
        result.error_message.decode("utf-8", "replace").strip(),
        constraint=constraint.decode("utf-8", "replace") if constraint else "",
    )
