"""A batch over two shards: what is sent again, and what is said of each item."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from dispatcher_site.routing.grouping import group_items
from modeldefs.kit.asks import Outcome, Written
from modeldefs.kit.buckets import BUCKET_COUNT, bucket_of
from modeldefs.kit.declared_problems import DeclaredProblem
from modeldefs.wire import calls
from modeldefs.wire.problems import (
    Conflict,
    DeadlineExceeded,
    InFlight,
    InputError,
    InvalidRequest,
    Overloaded,
    Problem,
    StaleEpoch,
    TransactionConflict,
    WrongShard,
)
from tests.unit.gateway.scripted import (
    REFUSED,
    RESET,
    SILENCE,
    Answer,
    ScriptedKeeper,
    ScriptedStream,
    ask,
    outcome_of,
    refusal,
)

IDS = [str(number) for number in range(1, 9)]
FIRST = [n for n, key in enumerate(IDS) if bucket_of(key) < BUCKET_COUNT // 2]
SECOND = [n for n in range(len(IDS)) if n not in FIRST]
NAMES = ("first_name", "last_name", "country", "address", "city")


class SeatTaken(DeclaredProblem, status=409):
    """A refusal of an author's own."""


def done(places: list[int], status: int = calls.WHOLE) -> Answer:
    """Return what a shard answers that has written these items."""
    return status, b"\n".join(b'{"id":"%b"}' % IDS[place].encode() for place in places)


def batch(
    one: list[Answer], two: list[Answer], *, key: str = "", timeout_ms: int = 2_000
) -> tuple[Outcome, ScriptedStream, ScriptedStream]:
    """Send the items to two shards that answer as their scripts say."""
    columns: dict[str, Any] = {"id": IDS, **{name: ["x"] * len(IDS) for name in NAMES}}
    asked = ask("insert_users", key=key, timeout_ms=timeout_ms, **columns)
    s1, s2 = ScriptedStream(deque(one)), ScriptedStream(deque(two))
    return outcome_of(asked, s1=s1, s2=s2), s1, s2


def told(outcome: Outcome) -> dict[str, Any]:
    """Return a problem's document, its ranges as places."""
    assert isinstance(outcome, Problem), outcome
    document = outcome.document()
    document["written"] = {
        fate: [place for first, last in ranges for place in range(first, last + 1)]
        for fate, ranges in document["written"].items()
    }
    return document


def test_items_go_to_their_owners() -> None:
    """Each to one, in ascending order, with the epoch of each of its buckets."""
    shard_map = ScriptedKeeper(["s1", "s2"]).state.shard_map
    assert shard_map is not None
    groups = {group.shard: group for group in group_items(shard_map, IDS)}

    assert FIRST
    assert SECOND
    assert groups["s1"].places == FIRST
    assert groups["s2"].places == SECOND
    assert groups["s1"].epochs == {bucket_of(IDS[place]): 1 for place in FIRST}
    assert [g.places for g in group_items(shard_map, IDS, SECOND)] == [SECOND]


def test_rows_come_in_the_order_of_the_items() -> None:
    """Whoever wrote them; a replay of all is called one, a replay of some is not."""
    written, *_ = batch([done(FIRST)], [done(SECOND)])
    again, *_ = batch([done(FIRST, calls.REPLAYED)], [done(SECOND, calls.REPLAYED)], key="k")
    half, *_ = batch([done(FIRST, calls.REPLAYED)], [done(SECOND)], key="k")
    body = b"[%b]" % b",".join(b'{"id":"%b"}' % key.encode() for key in IDS)

    assert written == Written(body)
    assert again == Written(body, replayed=True)
    assert half == Written(body)


def test_a_refusal_points_at_the_items_of_the_request() -> None:
    """The shard counts its own items; the client is told of those it sent."""
    there = Conflict(errors=[InputError("conflict", "is stored already", pointer="/items/1")])
    problem = told(batch([done(FIRST)], [refusal(there)])[0])

    assert (problem["status"], problem["code"], problem["retryable"]) == (409, "conflict", False)
    assert problem["written"] == {"yes": FIRST, "no": SECOND, "unknown": []}
    assert [error["pointer"] for error in problem["errors"]] == [f"/items/{SECOND[1]}"]
    assert [fault["id"] for fault in problem["shards"]] == ["s2"]


@pytest.mark.parametrize(
    ("script", "code", "fate"),
    [
        ([refusal(Conflict())], "conflict", "no"),
        ([refusal(InvalidRequest())], "invalid-request", "no"),
        ([refusal(SeatTaken())], "seat-taken", "no"),
        ([refusal(InFlight())], "in-flight", "unknown"),
        ([RESET, RESET], "shard-reset", "unknown"),
        ([RESET, REFUSED], "shard-unavailable", "unknown"),
        ([RESET, refusal(WrongShard())], "shard-unavailable", "unknown"),
        ([RESET, refusal(Conflict())], "conflict", "no"),
        ([RESET, refusal(SeatTaken())], "seat-taken", "no"),
        ([(calls.WHOLE, b"{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}")], "shard-untrusted", "unknown"),
    ],
)
@pytest.mark.parametrize("key", ["", "k"])
def test_what_is_said_of_the_items_of_a_shard_that_failed(
    script: list[Answer], code: str, fate: str, key: str
) -> None:
    """Surely not, or nobody knows; without a key nothing that may be stored is to be repeated."""
    problem = told(batch([done(FIRST)], script, key=key)[0])
    fates = {"yes": FIRST, "no": [], "unknown": []} | {fate: SECOND}

    assert (problem["code"], problem["written"]) == (code, fates)
    assert key or not problem["retryable"]


@pytest.mark.parametrize(
    "script",
    [
        [REFUSED],
        [refusal(Overloaded())],
        [refusal(TransactionConflict())],
        [refusal(DeadlineExceeded())],
        [refusal(WrongShard()), refusal(StaleEpoch())],
    ],
)
def test_a_keyed_repeat_never_denies_what_its_first_request_wrote(script: list[Answer]) -> None:
    """One shard wrote under the client's key, the other was away. At the repeat the first shard
    cannot look under the key: its items are unknown, not unwritten, until it can, and then they
    are replayed. Without a key nobody can have written them before: they are not."""
    first = told(batch([done(FIRST)], [REFUSED], key="k")[0])
    repeat = told(batch(script, [done(SECOND)], key="k")[0])
    last, *_ = batch([done(FIRST, calls.REPLAYED)], [done(SECOND, calls.REPLAYED)], key="k")
    unkeyed = told(batch(script, [done(SECOND)])[0])

    assert first["written"] == {"yes": FIRST, "no": [], "unknown": SECOND}
    assert repeat["written"] == {"yes": SECOND, "no": [], "unknown": FIRST}
    assert isinstance(last, Written)
    assert unkeyed["written"] == {"yes": SECOND, "no": FIRST, "unknown": []}


def test_a_lost_try_is_sent_again_under_its_key() -> None:
    """To the same shard, and only there."""
    outcome, one, two = batch([done(FIRST)], [RESET, done(SECOND)])

    assert isinstance(outcome, Written)
    assert (len(one.keys), two.keys) == (1, ["0123456789abcdef"] * 2)


def test_items_that_moved_are_grouped_anew_once() -> None:
    """A shard that refuses them as another's has written none, and the others go on."""
    outcome, one, two = batch([done(FIRST)], [refusal(WrongShard()), done(SECOND)])

    assert isinstance(outcome, Written)
    assert (len(one.keys), len(two.keys)) == (1, 2)


def test_a_shard_that_is_silent_costs_the_deadline_and_no_more() -> None:
    """What it was sent is unknown, what the other wrote is told, and the call is given up."""
    outcome, _, two = batch([done(FIRST)], [SILENCE], timeout_ms=50)
    problem = told(outcome)

    assert (problem["code"], problem["retryable"]) == ("deadline-exceeded", False)
    assert problem["written"] == {"yes": FIRST, "no": [], "unknown": SECOND}
    assert two.forgotten == [1]
