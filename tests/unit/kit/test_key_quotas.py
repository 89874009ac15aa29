"""Calls of limited keys: slots are given back once, whatever ends the call."""

from __future__ import annotations

from typing import Any

import pytest

from modeldefs.kit.key_quotas import LimitedCall, Quotas
from modeldefs.wire.http1 import BodyWriter, HttpReply, JsonReply, StreamReply
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import QuotaExceeded
from modeldefs.wire.quotas import KeyLimits


def principal(**limits: int) -> Principal:
    """Return a key with these limits."""
    return Principal("kid", "owner", ("*",), "live", "data", KeyLimits(**limits))


class Calls:
    """The calls of one key in a process whose clock stands still."""

    def __init__(self, *, share: int = 1, **limits: int) -> None:
        self.quotas = Quotas(clock=lambda: 100.0, share=share)
        self.replies: list[HttpReply] = []
        self._principal = principal(**limits)

    def begin(self) -> LimitedCall:
        """Return an admitted call."""
        metered = self.quotas.begin(self._principal, self.replies.append)
        metered.admit()
        return metered

    @property
    def in_flight(self) -> int:
        """How many calls hold a slot."""
        return self.quotas.meter(self._principal).in_flight


class Source:
    """A body that ends as it is told to."""

    def __init__(self) -> None:
        self.writer: BodyWriter | None = None
        self.stops = 0

    def begin(self, writer: BodyWriter) -> None:
        """Keep the writer."""
        self.writer = writer

    def resume(self) -> None:
        """Do nothing."""

    def shutdown(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Count."""
        self.stops += 1


class Writer:
    """Keeps what is written."""

    is_paused = False

    def __init__(self) -> None:
        self.log: list[Any] = []

    def write(self, piece: bytes) -> None:
        """Keep a piece."""
        self.log.append(piece)

    def end(self) -> None:
        """Keep the end."""
        self.log.append("end")

    def cut(self, last: bytes) -> None:
        """Keep the break."""
        self.log.append(("cut", last))


def test_as_many_calls_as_allowed_are_under_way() -> None:
    """The next is refused and takes nothing, not even a unit; a reply makes room for one."""
    calls = Calls(concurrency=2, rate=5)
    first, _ = calls.begin(), calls.begin()

    with pytest.raises(QuotaExceeded) as refused:
        calls.begin()
    assert ["concurrent"] == refused.value.members["violated-policies"]
    assert (2, 3) == (calls.in_flight, calls.quotas.by_kid["kid"].left(100.0)[0])
    first.reply(JsonReply(b"{}", b""))
    first.reply(JsonReply(b"{}", b""))

    calls.begin()
    assert 2 == calls.in_flight


def test_a_client_that_leaves_gives_its_slot_back_once() -> None:
    """Cancelled, and answered all the same: one slot."""
    calls = Calls(concurrency=3)
    other, gone = calls.begin(), calls.begin()
    cancelled: list[bool] = []
    give_up = gone.cancelling(lambda: cancelled.append(True))

    give_up()
    gone.reply(JsonReply(b"{}", b""))

    assert [True] == cancelled
    assert 1 == calls.in_flight
    other.release()
    assert 0 == calls.in_flight


@pytest.mark.parametrize("ending", ["end", "cut", "stop"])
def test_a_stream_holds_its_slot_until_it_ends(ending: str) -> None:
    """Its reply is not its end: whole, broken off or stopped is."""
    calls, source, writer = Calls(concurrency=1), Source(), Writer()
    call = calls.begin()
    call.reply(StreamReply([], source))
    (reply,) = calls.replies
    assert isinstance(reply, StreamReply)
    reply.source.begin(writer)
    assert source.writer is not None
    source.writer.write(b"row")
    assert 1 == calls.in_flight

    if ending == "stop":
        reply.source.stop()
    elif ending == "cut":
        source.writer.cut(b"x")
    else:
        source.writer.end()

    assert 0 == calls.in_flight
    assert (1 if ending == "stop" else 0) == source.stops
    assert writer.log[0] == b"row"


def test_processes_that_count_alone_have_a_share_each() -> None:
    """Two of four slots and half of the rate for each of two; what is left is said as such."""
    calls = Calls(share=2, concurrency=4, rate=10)
    for _ in range(2):
        calls.begin().reply(JsonReply(b"{}", b""))

    assert b'"key";r=3;t=24, "concurrent";r=4' in calls.replies[-1].headers[-1][1]
    calls.begin(), calls.begin()
    with pytest.raises(QuotaExceeded):
        calls.begin()


def test_limits_that_changed_apply_to_what_was_counted() -> None:
    """A new generation of the keyring changes the limits and forgets no use."""
    quotas = Quotas(clock=lambda: 1.0)
    for _ in range(4):
        quotas.begin(principal(rate=5), lambda reply: None).admit()

    quotas.begin(principal(rate=60), lambda reply: None).admit()

    assert 60 == quotas.by_kid["kid"].limits.rate
    assert 5 == quotas.by_kid["kid"].total
    quotas.forget_others(frozenset())
    assert ["kid"] == list(quotas.by_kid)  # calls are under way


def test_a_call_that_costs_more_than_the_bucket_holds_leaves_a_debt() -> None:
    """A batch larger than the burst is admitted when all units are there, never otherwise, and
    is paid in full before the next call."""
    calls = Calls(rate=60, burst=5)
    calls.begin().charge(30)
    with pytest.raises(QuotaExceeded) as refused:
        calls.begin()
    other = Calls(rate=60, burst=5)
    other.begin()
    with pytest.raises(QuotaExceeded):
        other.begin().charge(30)

    assert refused.value.retry_after_ms is not None
    assert 25_000 < refused.value.retry_after_ms <= 26_000
    assert 2 == other.quotas.by_kid["kid"].total
