"""What a client is told of a write that Postgres refused, or of which nobody knows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn, cast

import psycopg
import pytest
import uvloop
from django.db import IntegrityError

from modeldefs.wire.problems import Overloaded, Problem
from shardnode.runtime.idempotency import WriteKey
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lane_statements import LaneError
from shardnode.runtime.mutations import Writer
from shardnode.runtime.sqlstates import problem_of_sqlstate
from shardnode.runtime.write_runs import Write, WriteRunner
from tests.unit.gateway.scripted import ask

PATIENCE_S = 20.0
LOST = LaneError("08006", "lost")
UNSENT = LaneError("08006", "lost", was_sent=False)
LATE = LaneError("57014", "cancelled")
LOCKED = LaneError("55P03", "locked")
AWAY = LaneError("57P03", "starting up")
TWIN = LaneError("23505", "duplicate")
EXCLUDED = LaneError("23P01", "excluded")
FULL = None


@pytest.mark.parametrize(
    ("sqlstate", "is_write", "status", "code", "retryable"),
    [
        ("SP001", True, 500, "definition-fault", False),
        ("SP002", True, 500, "definition-fault", False),
        ("SP005", True, 500, "definition-fault", False),
        ("22012", False, 500, "definition-fault", False),
        ("22P02", False, 500, "definition-fault", False),
        ("22P02", True, 400, "invalid-request", False),
        ("23514", True, 400, "invalid-request", False),
        ("23505", True, 409, "conflict", False),
        ("23503", True, 409, "conflict", False),
        ("40001", True, 503, "transaction-conflict", True),
        ("40P01", True, 503, "transaction-conflict", True),
        ("55P03", True, 503, "transaction-conflict", True),
        ("57014", True, 504, "deadline-exceeded", True),
        ("57014", False, 504, "deadline-exceeded", True),
        ("53100", True, 503, "storage-full", False),
        ("08006", False, 503, "shard-unavailable", True),
        ("57P01", False, 503, "shard-unavailable", True),
        ("57P03", False, 503, "shard-unavailable", True),
        ("53300", False, 503, "shard-unavailable", True),
        ("25006", True, 503, "not-primary", True),
        ("42501", False, 403, "forbidden", False),
        ("42P01", False, 503, "shard-behind", True),
        ("XX000", False, 500, "internal", False),
        ("", False, 500, "internal", False),
    ],
)
def test_each_sqlstate_is_one_problem(
    sqlstate: str, is_write: bool, status: int, code: str, retryable: bool
) -> None:
    """By the code alone: Postgres' own text, which may hold rows and names, is nowhere in it."""
    problem = problem_of_sqlstate(sqlstate, is_write=is_write, shard="s1")
    document = problem.document()

    assert (problem.status, problem.code) == (status, code)
    assert document["retryable"] is retryable
    assert sqlstate == "" or sqlstate not in str(document)


class ScriptedLanes:
    """A pool whose lanes end statements as the test says; ``FULL`` means that none is free."""

    def __init__(self, *script: LaneError | None) -> None:
        self._script = deque(script)
        self.sent = 0

    def pick(self) -> Any:
        """Return a lane, unless the script says that there is none."""
        if self._script[0] is FULL:
            self._script.popleft()
            return None
        return self

    def wait(self, _deadline: float, _go: Any, refuse: Callable[[], None]) -> None:
        """Refuse when the turn would have come."""
        asyncio.get_running_loop().call_soon(refuse)

    def refusal(self, _shard: str) -> Problem:
        """Say that there is too much to do."""
        return Overloaded(retry_after_ms=1_000)

    def send(self, *, done: Callable[[Any, Any], None], **_: Any) -> None:
        """End a statement."""
        self.sent += 1
        asyncio.get_running_loop().call_soon(done, None, self._script.popleft())


def _outcome(*script: LaneError | None, key: bool, hop: bool = True) -> tuple[Problem, int]:
    """Return what is told of a write whose tries end so, and how many there were."""

    async def run() -> tuple[Problem, int]:
        loop = asyncio.get_running_loop()
        lanes = ScriptedLanes(*script)
        runner = WriteRunner(lanes=cast(LanePool, lanes), shard="s1", clock=loop.time)
        came: asyncio.Future[Any] = loop.create_future()
        runner.send(
            Write(
                b"w", b"INSERT", [], 1, 1, loop.time() + PATIENCE_S, came.set_result,
                WriteKey("0" * 32, b"f", hop=hop) if key else None,
            )
        )  # fmt: skip
        return await asyncio.wait_for(came, PATIENCE_S), lanes.sent

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


@pytest.mark.parametrize("last", [LOST, LATE, LOCKED, AWAY, FULL])
def test_after_a_lost_try_a_fault_is_an_unknown_outcome(last: LaneError | None) -> None:
    """The first try may be committed: whatever kept the second from coming through, it is 502 and
    not to be tried again."""
    script = [LOST, last, LOST] if last is LOST else [LOST, last]
    problem, _ = _outcome(*script, key=True)

    assert (problem.status, problem.code) == (502, "shard-reset")
    assert problem.document()["retryable"] is False


@pytest.mark.parametrize("hop", [True, False])
@pytest.mark.parametrize("twin", [TWIN, EXCLUDED])
@pytest.mark.parametrize("answer", [LATE, LOST, AWAY, FULL])
@pytest.mark.parametrize("before", [[], [LOST]])
def test_a_duplicate_that_may_be_the_writes_own_row_is_an_unknown_outcome(
    before: list[LaneError | None], answer: LaneError | None, twin: LaneError, hop: bool
) -> None:
    """A lost try, or another request with the key, may have written the row that is in the way:
    where nobody could look under the key it is 502, never a definite 409."""
    problem, sent = _outcome(*before, twin, answer, key=True, hop=hop)

    assert (problem.status, problem.code) == (502, "shard-reset")
    assert problem.document()["retryable"] is not hop  # safe under a key of the client's
    assert sent == len(before) + 1 + (answer is not FULL)


class ScriptedWriter(Writer):
    """Runs Python writes whose every try ends with an error of Postgres, as a test says."""

    def __init__(self, *script: str) -> None:
        super().__init__(shard="s1", clock=lambda: 0.0, threads=1)
        self._script = deque(script)
        self._local.begun = False

    def _attempt(self, *_: Any) -> NoReturn:
        cause = psycopg.errors.lookup(self._script.popleft())
        raise IntegrityError from cause()


@pytest.mark.parametrize(
    ("script", "key", "is_hop", "told"),
    [
        (["40001", "40001", "23505"], "k", False, ("shard-reset", True)),
        (["23505", "40001", "23505"], "k", False, ("shard-reset", True)),
        (["40001", "40001", "23505"], "", True, ("shard-reset", False)),
        (["40001", "23505", "23505"], "k", False, ("conflict", False)),
        (["23505", "23505", "23505"], "k", False, ("conflict", False)),
        (["23505"], "", False, ("conflict", False)),
    ],
)
def test_a_python_write_is_a_conflict_only_once_its_key_was_looked_up(
    script: list[str], key: str, is_hop: bool, told: tuple[str, bool]
) -> None:
    """Each try looks under the key before it writes: a duplicate that only the last one met may be
    the row of another request with the key, so nobody knows. Under a key of the client's another
    try finds out; one that the dispatcher made is nobody's afterwards."""
    asked = ask("insert_user", key=key, id="7")

    async def run() -> Any:
        writer = ScriptedWriter(*script)
        call = asked.call(is_hop=is_hop)
        try:
            return writer._run(asked.served.endpoint, call, 1, 1, PATIENCE_S)
        finally:
            await writer.close()

    problem = asyncio.run(run())
    assert (problem.code, problem.document()["retryable"]) == told


def test_a_duplicate_without_a_key_is_a_conflict() -> None:
    """Nobody else can have written its row for it, so nothing is asked."""
    problem, sent = _outcome(TWIN, key=False)

    assert (problem.status, problem.code, sent) == (409, "conflict", 1)


def test_a_write_without_a_key_is_not_sent_again_once_it_may_be_done() -> None:
    """One try, and nobody knows."""
    problem, sent = _outcome(LOST, key=False)

    assert (problem.code, problem.document()["retryable"], sent) == ("shard-reset", False, 1)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ([LATE], "deadline-exceeded"),
        ([LOCKED], "transaction-conflict"),
        ([FULL], "overloaded"),
        ([UNSENT, UNSENT, UNSENT], "shard-unavailable"),
        ([UNSENT, FULL], "overloaded"),
    ],
)
def test_what_surely_did_nothing_may_be_tried_again(
    script: list[LaneError | None], code: str
) -> None:
    """Cancelled, refused or never sent: it says so, and that another try is safe."""
    problem, _ = _outcome(*script, key=False)

    assert (problem.code, problem.document()["retryable"]) == (code, True)
