"""A stream that breaks under a call: what is sent again, and what the client may believe."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from modeldefs.kit.asks import GroupsOutcome, Outcome, PageOutcome, Written
from modeldefs.wire.problems import (
    Conflict,
    DeadlineExceeded,
    Overloaded,
    Problem,
    TransactionConflict,
    WrongShard,
)
from tests.unit.gateway.scripted import (
    DONE,
    EMPTY,
    REFUSED,
    RESET,
    SATURATED,
    SILENCE,
    Answer,
    ScriptedStream,
    ask,
    outcome_of,
    refusal,
)

ROW: dict[str, Any] = {
    "id": "7", "first_name": "A", "last_name": "B", "country": "C", "address": "D", "city": "E",
}  # fmt: skip


def _stream(*script: Answer, polls_until_open: int = 0) -> ScriptedStream:
    return ScriptedStream(deque(script), polls_until_open)


def _told(outcome: Outcome) -> tuple[int, str, bool]:
    assert isinstance(outcome, Problem), outcome
    document: dict[str, Any] = outcome.document()
    return outcome.status, outcome.code, document["retryable"]


def _insert(*script: Answer, key: str = "", timeout_ms: int = 2_000) -> Outcome:
    return outcome_of(
        ask("insert_user", key=key, timeout_ms=timeout_ms, **ROW), s1=_stream(*script)
    )


def test_a_write_is_sent_again_under_the_same_key() -> None:
    """The client's own, or one of the request's own: so the shard can do it once."""
    for key in ("", "client's"):
        stream = _stream(RESET, DONE)
        outcome = outcome_of(ask("insert_user", key=key, **ROW), s1=stream)

        assert isinstance(outcome, Written)
        assert stream.keys == [key or "0123456789abcdef"] * 2


def test_another_try_waits_for_the_stream_to_be_there_again() -> None:
    """A worker that died is replaced: a try before that would only be refused."""
    read = outcome_of(ask("get_user", id="7"), s1=_stream(RESET, EMPTY, polls_until_open=3))
    write = outcome_of(ask("insert_user", **ROW), s1=_stream(RESET, DONE, polls_until_open=3))
    scatter = outcome_of(
        ask("get_user", country="C"), s1=_stream(RESET, EMPTY, polls_until_open=3)
    )

    assert isinstance(read, PageOutcome)
    assert isinstance(write, Written)
    assert isinstance(scatter, PageOutcome)


def test_a_stream_that_stays_away_is_not_waited_for_to_the_deadline() -> None:
    """Reads are refused as those are that come now; of a write nobody knows."""
    away = 10**9
    read = outcome_of(
        ask("get_user", timeout_ms=400, id="7"), s1=_stream(RESET, polls_until_open=away)
    )
    scatter = outcome_of(
        ask("count_users", timeout_ms=400), s1=_stream(RESET, polls_until_open=away)
    )
    write = outcome_of(
        ask("insert_user", timeout_ms=400, **ROW), s1=_stream(RESET, polls_until_open=away)
    )

    assert _told(read) == (503, "shard-unavailable", True)
    assert _told(scatter) == (503, "shard-unavailable", True)
    assert _told(write) == (502, "shard-reset", False)


@pytest.mark.parametrize(
    "second",
    [
        RESET,
        REFUSED,
        SATURATED,
        refusal(Overloaded()),
        refusal(TransactionConflict()),
        refusal(DeadlineExceeded()),
        refusal(WrongShard()),
        (599, b"\xc1"),
    ],
)
def test_after_a_lost_try_a_fault_is_an_unknown_outcome(second: Answer) -> None:
    """Whatever kept the second try of a write from coming through, the first may have been done:
    502, and not to be tried again but under a key of the client's."""
    assert _told(_insert(RESET, second)) == (502, "shard-reset", False)
    assert _told(_insert(RESET, second, key="client's")) == (502, "shard-reset", True)


def test_a_refusal_after_a_lost_try_is_a_refusal() -> None:
    """The shard knows the key: had the first try been done it would have answered that."""
    assert _told(_insert(RESET, refusal(Conflict()))) == (409, "conflict", False)


@pytest.mark.parametrize("only", [REFUSED, SATURATED, refusal(Overloaded())])
def test_what_never_left_may_be_tried_again(only: Answer) -> None:
    """Nothing was done, so the problem says that another try is safe."""
    status, _, retryable = _told(_insert(only))

    assert (status, retryable) == (503, True)


def test_a_deadline_without_an_answer_leaves_a_write_unknown() -> None:
    """504, retryable only under a key; and the node is told to forget the call."""
    for script in ((SILENCE,), (RESET, SILENCE)):
        stream = _stream(*script)
        outcome = outcome_of(ask("insert_user", timeout_ms=150, **ROW), s1=stream)

        assert _told(outcome) == (504, "deadline-exceeded", False)
        assert stream.forgotten == [1]
    assert _told(_insert(SILENCE, key="client's", timeout_ms=150))[2] is True
    read = outcome_of(ask("get_user", timeout_ms=150, id="7"), s1=_stream(SILENCE))
    assert _told(read) == (504, "deadline-exceeded", True)


def test_a_read_lost_twice_is_a_fault_that_may_be_tried_again() -> None:
    """502 with the shard's name; a read does nothing, so trying again harms nobody."""
    outcome = outcome_of(ask("get_user", id="7"), s1=_stream(RESET, RESET))

    assert _told(outcome) == (502, "shard-reset", True)


def test_two_shards_lost_at_once_cost_one_more_try() -> None:
    """Every leg of the scatter is sent once again, and its answers are counted once."""
    part = (200, b"\x91\x91\x91\x01")
    first, second = _stream(RESET, part), _stream(RESET, part)
    outcome = outcome_of(ask("count_users"), s1=first, s2=second)

    assert isinstance(outcome, GroupsOutcome)
    assert outcome.rows == [[2]]
    assert not first.script
    assert not second.script
