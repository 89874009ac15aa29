"""One write under way on a lane: sent, sent again where that is safe, asked why it did nothing.

What the statement is, ``writes`` knows; here it is bytes with a name.

Invariant: what was answered with a body is committed. A write whose outcome is unknown, because
the connection broke after it was sent, is asked again only under a key: then it happens once,
whether the first try did or not. And a write that did nothing under its key is refused only once
it is known that nothing is stored there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from modeldefs.kit.declared_problems import DeclaredProblem, problem_of_constraint
from modeldefs.wire import problems
from modeldefs.wire.problems import Problem
from shardnode.runtime import sqlstates
from shardnode.runtime.idempotency import WriteKey
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lane_statements import LaneError
from shardnode.runtime.lanes import Lane
from shardnode.runtime.sqlstates import problem_of_sqlstate
from shardnode.runtime.write_statements import WHY

logger = logging.getLogger(__name__)

TRIES_MAX = 3
# How long a write waits for a row, or for a request with the same key, before it is refused.
LOCK_TIMEOUT_MS = 1_000
RECONNECT_S = 0.1  # how long a lost connection's server gets before its write is asked again
# A statement that waits for a row that another holds makes those behind it wait too. And a plan
# that fits every value is kept: all of these find their row by a key.
WRITE_SESSION = (
    b"SET lock_timeout = %d" % LOCK_TIMEOUT_MS,
    b"SET plan_cache_mode = 'force_generic_plan'",
)
NO_SCOPE = "0" * 32

Done = Callable[[Any], None]


class Question(NamedTuple):
    """A statement that says why a write did nothing."""

    name: bytes
    sql: bytes
    params: Sequence[bytes | None]


@dataclass(slots=True)
class Write:
    """One write under way."""

    name: bytes
    sql: bytes
    params: Sequence[bytes | None]
    bucket: int
    epoch: int
    deadline: float
    done: Done
    key: WriteKey | None
    problems: Sequence[type[DeclaredProblem]] = ()  # the author's own
    must_exist: bool = False  # that nothing was done means that there is no such row
    tries: int = 0
    was_lost: bool = False  # a try may have been committed without our knowing

    def refusal(self, error: LaneError, shard: str) -> Problem:
        """Return what a client is told of an error of Postgres."""
        is_clients = self.key is not None and not self.key.hop
        return problem_of_constraint(self.problems, error.constraint) or problem_of_sqlstate(
            error.sqlstate, is_write=True, shard=shard, is_keyed=is_clients
        )

    @property
    def asks_why(self) -> bool:
        """Can what refused it be its own doing, by another try under its key?"""
        return self.key is not None

    def unmet(self, result: Any) -> Problem | None:
        """Return why a condition of the request keeps it from being done; None without one."""
        return None

    def question(self) -> Question:
        """Return what to ask when it did nothing: is the bucket ours, what does the key hold.

        It answers with the three columns of ``WHY``.
        """
        scope = self.key.scope if self.key is not None else NO_SCOPE
        params = [b"%d" % self.bucket, b"%d" % self.epoch, scope.encode()]
        return Question(b"why", WHY.encode(), params)


class WriteRunner:
    """Runs the writes of one worker process on its lanes."""

    def __init__(self, *, lanes: LanePool, shard: str, clock: Callable[[], float]) -> None:
        self._lanes = lanes
        self._shard = shard
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    def send(self, write: Write) -> None:
        """Run a write; its ``done`` gets its JSON, a replay of it, or a problem."""
        lane = self._lanes.pick()
        if lane is not None:
            self._board(write, lane)
        else:
            self._lanes.wait(
                write.deadline, partial(self._board, write), partial(self._refuse, write)
            )

    def _refuse(self, write: Write) -> None:
        write.done(self._told(write, self._lanes.refusal(self._shard)))

    def _board(self, write: Write, lane: Lane) -> None:
        write.tries += 1
        lane.send(
            name=write.name,
            sql=write.sql,
            params=write.params,
            deadline=write.deadline,
            done=partial(self._on_result, write),
        )

    def _on_result(self, write: Write, result: Any, error: LaneError | None) -> None:
        if error is not None:
            self._on_error(write, error)
        elif result.ntuples:
            write.done(result.get_value(0, 0))
        else:
            self._ask_why(write, None)

    def _on_error(self, write: Write, error: LaneError) -> None:
        logger.info("write.refused", extra={"sqlstate": error.sqlstate})
        if error.sqlstate == sqlstates.CONNECTION_LOST:
            self._on_lost(write, was_sent=error.was_sent)
        elif error.sqlstate == sqlstates.TERMINATED:
            # It says so only of a statement that runs, and takes that back.
            self._on_lost(write, was_sent=False)
        elif error.sqlstate in sqlstates.TWINS and write.asks_why:
            # Of the row, or of the key: then another try under it was quicker, and is committed.
            self._ask_why(write, write.refusal(error, self._shard))
        elif error.sqlstate in sqlstates.RETRYABLE and self._may_repeat(write):
            self.send(write)
        else:
            write.done(self._told(write, write.refusal(error, self._shard)))

    def _on_lost(self, write: Write, *, was_sent: bool) -> None:
        write.was_lost = write.was_lost or was_sent
        if (write.key is not None or not write.was_lost) and self._may_repeat(write):
            self._loop.call_later(RECONNECT_S, self._again, write)
        else:
            write.done(self._lost(write))

    def _again(self, write: Write) -> None:
        if self._clock() < write.deadline:
            self.send(write)
        else:
            write.done(self._lost(write))

    def _lost(self, write: Write) -> Problem:
        problem = problem_of_sqlstate(sqlstates.CONNECTION_LOST, is_write=True, shard=self._shard)
        return self._told(write, problem)

    def _told(self, write: Write, problem: Problem) -> Problem:
        """Return what the client is told: whether a lost try was done is not known by a later one
        that did not come through."""
        if not write.was_lost or problem.status < 500:
            return problem
        return self._unknown(write, problem)

    def _unknown(self, write: Write, problem: Problem) -> Problem:
        is_clients = write.key is not None and not write.key.hop
        # Under a client's key another try does nothing twice.
        return problems.ShardReset(shards=problem.shards, members={"retryable": is_clients})

    def _may_repeat(self, write: Write) -> bool:
        return write.tries < TRIES_MAX and self._clock() < write.deadline

    # -- why nothing was done --------------------------------------------------------------------

    def _ask_why(self, write: Write, otherwise: Problem | None) -> None:
        lane = self._lanes.pick()
        if lane is None:
            write.done(self._unanswered(write, self._lanes.refusal(self._shard)))
            return
        question = write.question()
        lane.send(
            name=question.name,
            sql=question.sql,
            params=question.params,
            deadline=write.deadline,
            done=partial(self._on_reason, write, otherwise),
        )

    def _unanswered(self, write: Write, problem: Problem) -> Problem:
        """Return what is told of a try that did nothing, where it could not be asked why.

        Under a key the reason may be that a lost try, or another request with the key, did it.
        """
        return self._unknown(write, problem) if write.key is not None else problem

    def _on_reason(
        self, write: Write, otherwise: Problem | None, result: Any, error: LaneError | None
    ) -> None:
        if error is not None:
            problem = problem_of_sqlstate(error.sqlstate, is_write=True, shard=self._shard)
            write.done(self._unanswered(write, problem))
            return
        owned, stored, body = (result.get_value(0, column) for column in range(3))
        try:
            if stored is not None and write.key is not None:
                write.done(write.key.replay(bytes.fromhex(stored.decode()), body))
                return
            is_owned = owned == b"t"
            unmet = write.unmet(result) if is_owned else None
            raise unmet or self._reason(write, otherwise, is_owned=is_owned)
        except problems.TransactionConflict as conflict:
            # The key was stored and pruned meanwhile, or the bucket went and came back.
            if self._may_repeat(write):
                self.send(write)
            else:
                write.done(self._told(write, conflict))
        except Problem as problem:
            write.done(problem)
        except Exception:
            logger.exception("write.failed")
            write.done(problems.Internal())

    def _reason(self, write: Write, otherwise: Problem | None, *, is_owned: bool) -> Problem:
        if otherwise is not None:
            return otherwise
        if not is_owned:
            return problems.WrongShard()
        return problems.NotFound() if write.must_exist else problems.TransactionConflict()
