"""One export under way: what it asks for, what it hands out, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from modeldefs import Page, query
from modeldefs.kit.asks import Ask, LinesOutcome, Outcome, Served, Shards
from modeldefs.kit.export_merge import PART_ROWS_MAX, Wanted
from modeldefs.kit.exports import EXPORTS_MAX, REPLANS_MAX, Exports, OnPart
from modeldefs.kit.request_headers import RequestHeaders
from modeldefs.wire import calls
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import (
    DeadlineExceeded,
    Internal,
    Overloaded,
    Problem,
    ResultTooLarge,
    ShardUnavailable,
    StaleEpoch,
)
from tests.definitions_shop.shop import Customer
from tests.unit.kit.planning import plan_of

ROWS = 5_000


@query(order="id")
def everybody() -> Page[Customer]:
    """All customers."""
    return Customer.objects.all()


def ask_of(limit: int = 0, timeout_ms: int = 60_000) -> Ask:
    """Return an ask for all rows."""
    principal: Any = Principal.__new__(Principal)
    plan = plan_of(everybody)
    return Ask(
        Served(everybody), plan, 0, {}, limit, None, principal, "r", timeout_ms, is_export=True
    )


@dataclass
class Numbers:
    """Two shards: the even and the odd numbers; and faults by the number of the question."""

    rows: int = ROWS
    faults: dict[int, Problem | calls.PagePart] = field(default_factory=dict)
    hangs_at: int | None = None
    mends: bool = True
    names: list[str] = field(default_factory=lambda: ["even", "odd"])
    shards: Shards = field(default_factory=lambda: Shards(2, 2))
    asked: int = 0
    plans: int = 0
    mended: int = 0
    under_way: list[asyncio.Handle] = field(default_factory=list)

    def plan(self) -> int:
        """Ask both."""
        self.plans += 1
        return 2

    def ask(self, wanted: Wanted, timeout_ms: int, on_part: OnPart) -> None:
        """Answer in the next tick."""
        number, self.asked = self.asked, self.asked + 1
        if number == self.hangs_at:
            return
        part = self.faults.pop(number, None)
        if part is None:
            first = wanted.place if wanted.after is None else wanted.after[0] + 1
            first += (first + wanted.place) % 2
            keys = [[n] for n in range(first, min(self.rows, first + 2 * wanted.rows), 2)]
            rows = [b"%d" % key[0] for key in keys]
            part = calls.PagePart(rows, keys, bool(keys) and keys[-1][0] + 2 < self.rows)
        loop = asyncio.get_running_loop()
        self.under_way.append(loop.call_soon(on_part, wanted.place, part))

    def forget(self) -> None:
        """Forget what is under way."""
        for handle in self.under_way:
            handle.cancel()
        self.under_way.clear()

    def mend(self, problem: Problem, again: Callable[[], None]) -> bool:
        """Mend what is about the map, later."""
        if not self.mends or not isinstance(problem, StaleEpoch):
            return False
        self.mended += 1
        asyncio.get_running_loop().call_soon(again)
        return True

    def final(self, problem: Problem, place: int) -> Problem:
        """Name the shard."""
        return problem


class Client:
    """Takes the outcome and the body; reads nothing while ``is_paused``."""

    def __init__(self, *, reads: int | None = None) -> None:
        self.outcome: Outcome | None = None
        self.body = b""
        self.end_of: str | None = None
        self._reads = reads
        self.news = asyncio.Event()

    @property
    def is_paused(self) -> bool:
        """Did it read all that it wants to?"""
        return self._reads is not None and self.body.count(b"\n") >= self._reads

    def write(self, piece: bytes) -> None:
        self.body += piece

    def end(self) -> None:
        self.end_of = "whole"
        self.news.set()

    def cut(self, last: bytes) -> None:
        self.body += last
        self.end_of = "broken off"
        self.news.set()

    def read_on(self) -> None:
        """Read all that is left."""
        self._reads = None
        assert isinstance(self.outcome, LinesOutcome)
        self.outcome.export.resume()

    def done(self, outcome: Outcome) -> None:
        """Take the outcome, and the body if there is one."""
        self.outcome = outcome
        if isinstance(outcome, LinesOutcome):
            outcome.export.last_line = lambda problem, position: (
                f"{problem.code} behind {position}\n".encode()
            )
            outcome.export.begin(self)
        else:
            self.news.set()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario, failing if it hangs."""
    asyncio.run(asyncio.wait_for(scenario, 20))


def lines(count: int) -> bytes:
    """Return the first rows of the whole."""
    return b"".join(b"%d\n" % n for n in range(count))


async def _settled(parts: Numbers) -> None:
    """Let everything happen that can."""
    before = -1
    while before != parts.asked:
        before = parts.asked
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.mark.parametrize("limit", [0, 1, 30, 4_999])
def test_all_rows_in_order_and_then_the_end(limit: int) -> None:
    """The rows of both shards leave in one order, all of them or up to a limit."""

    async def scenario() -> None:
        exports, parts, client = Exports(), Numbers(), Client()
        exports.begin(ask_of(limit), parts, client.done)
        await client.news.wait()
        assert (lines(limit or ROWS), "whole") == (client.body, client.end_of)
        assert 0 == exports.under_way

    run(scenario())


def test_first_rows_leave_before_the_second_parts_are_there() -> None:
    """The outcome is given with the first small parts; by then little more was asked for."""

    async def scenario() -> None:
        parts, client = Numbers(), Client()
        Exports().begin(ask_of(), parts, client.done)
        while client.outcome is None:
            await asyncio.sleep(0)
        assert client.body.startswith(lines(10))
        assert parts.asked <= 4

    run(scenario())


def test_no_shard_is_asked_for_a_client_that_does_not_read() -> None:
    """While the client is behind, the questions stop; when it reads, all the rest comes."""

    async def scenario() -> None:
        parts, client = Numbers(rows=100_000), Client(reads=1)
        Exports().begin(ask_of(), parts, client.done)
        await _settled(parts)
        asked = parts.asked
        held = client.body.count(b"\n")
        assert asked <= 2 * 3
        assert held <= 2 * PART_ROWS_MAX
        client.read_on()
        await client.news.wait()
        assert (lines(100_000), "whole") == (client.body, client.end_of)
        assert parts.asked > 10 * asked

    run(scenario())


def test_hanging_up_stops_the_questions_and_frees_the_place() -> None:
    """After the client left nothing is asked any more."""

    async def scenario() -> None:
        exports, parts, client = Exports(), Numbers(rows=100_000), Client(reads=1)
        exports.begin(ask_of(), parts, client.done)
        await _settled(parts)
        asked = parts.asked
        assert isinstance(client.outcome, LinesOutcome)
        client.outcome.export.stop()
        client.outcome.export.resume()
        await _settled(parts)
        assert (asked, 0, []) == (parts.asked, exports.under_way, parts.under_way)
        assert client.end_of is None

    run(scenario())


def test_a_client_that_left_before_the_first_row_is_asked_nothing_for() -> None:
    """What ``begin`` returns gives the export up; no outcome follows."""

    async def scenario() -> None:
        exports, parts, client = Exports(), Numbers(), Client()
        cancel = exports.begin(ask_of(), parts, client.done)
        assert cancel is not None
        cancel()
        await _settled(parts)
        assert (None, 0, 2) == (client.outcome, exports.under_way, parts.asked)

    run(scenario())


def test_a_failure_before_the_first_row_is_an_ordinary_problem() -> None:
    """Nothing was sent, so the status can still say it."""

    async def scenario() -> None:
        exports, client = Exports(), Client()
        parts = Numbers(faults={1: ShardUnavailable("gone")})
        exports.begin(ask_of(), parts, client.done)
        await client.news.wait()
        assert isinstance(client.outcome, ShardUnavailable)
        assert (b"", 0) == (client.body, exports.under_way)

    run(scenario())


def test_a_failure_behind_the_first_row_breaks_the_body_off_at_its_position() -> None:
    """The last line names the problem and the position of the last row that was sent."""

    async def scenario() -> None:
        exports, client = Exports(), Client()
        parts = Numbers(faults={6: ShardUnavailable("gone")})
        exports.begin(ask_of(), parts, client.done)
        await client.news.wait()
        rows, _, last = client.body.removesuffix(b"\n").rpartition(b"\n")
        sent = rows.count(b"\n") + 1
        assert "broken off" == client.end_of
        assert lines(sent) == rows + b"\n"
        assert f"shard-unavailable behind [{sent - 1}]".encode() == last
        assert 0 == exports.under_way

    run(scenario())


@pytest.mark.parametrize("at", [0, 1, 5, 8])
def test_a_changed_map_costs_a_new_plan_and_no_row(at: int) -> None:
    """A refusal that says the map is old leads to a new plan behind the position."""

    async def scenario() -> None:
        parts, client = Numbers(faults={at: StaleEpoch()}), Client()
        Exports().begin(ask_of(), parts, client.done)
        await client.news.wait()
        assert (lines(ROWS), "whole") == (client.body, client.end_of)
        assert (2, 1) == (parts.plans, parts.mended)

    run(scenario())


def test_new_plans_without_a_row_between_them_are_few() -> None:
    """A map that never settles is a problem at last."""

    async def scenario() -> None:
        client = Client()
        parts = Numbers(faults={n: StaleEpoch() for n in range(100)})
        Exports().begin(ask_of(), parts, client.done)
        await client.news.wait()
        assert isinstance(client.outcome, StaleEpoch)
        assert REPLANS_MAX == parts.mended

    run(scenario())


def test_a_part_that_is_too_large_is_asked_for_in_smaller_ones() -> None:
    """Long rows cost more questions, not the export."""

    async def scenario() -> None:
        faults: dict[int, Problem | calls.PagePart] = {n: ResultTooLarge() for n in (0, 2, 7)}
        parts, client = Numbers(faults=faults), Client()
        Exports().begin(ask_of(), parts, client.done)
        await client.news.wait()
        assert (lines(ROWS), "whole", 1) == (client.body, client.end_of, parts.plans)

    run(scenario())


def test_an_answer_that_is_no_part_is_no_end() -> None:
    """A shard that answers nonsense breaks the export off."""

    async def scenario() -> None:
        client = Client()
        parts = Numbers(faults={4: calls.PagePart([], [], True)})
        Exports().begin(ask_of(), parts, client.done)
        await client.news.wait()
        assert "broken off" == client.end_of
        assert Internal.code.encode() in client.body

    run(scenario())


@pytest.mark.parametrize("at", [1, 5])
def test_a_shard_that_hangs_is_named_at_the_deadline(at: int) -> None:
    """The time that the caller allows is for each part: the whole may take longer."""

    async def scenario() -> None:
        exports, client = Exports(), Client()
        parts = Numbers(hangs_at=at)
        exports.begin(ask_of(timeout_ms=20), parts, client.done)
        await client.news.wait()
        if at == 1:
            assert isinstance(client.outcome, DeadlineExceeded)
            assert ["odd"] == [fault.id for fault in client.outcome.shards]
        else:
            assert "broken off" == client.end_of
            assert b"deadline-exceeded behind" in client.body
        assert 0 == exports.under_way

    run(scenario())


def test_a_stopping_worker_breaks_off_and_says_where() -> None:
    """The client can go on elsewhere, behind the last row it got."""

    async def scenario() -> None:
        exports, parts, client = Exports(), Numbers(rows=100_000), Client(reads=1)
        exports.begin(ask_of(), parts, client.done)
        await _settled(parts)
        assert isinstance(client.outcome, LinesOutcome)
        client.outcome.export.shutdown()
        assert ("broken off", 0) == (client.end_of, exports.under_way)
        assert b"shard-unavailable behind [" in client.body

    run(scenario())


def test_a_body_that_never_begins_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the head and the body a client may go without a word: the export ends by itself."""
    monkeypatch.setattr("modeldefs.kit.exports.BEGIN_WITHIN_S", 0.0)

    async def scenario() -> None:
        exports, parts = Exports(), Numbers(rows=100_000)
        told: list[Outcome] = []
        exports.begin(ask_of(), parts, told.append)
        while exports.under_way:
            await asyncio.sleep(0)
        assert isinstance(told[0], LinesOutcome)
        assert parts.asked <= 4

    run(scenario())


def test_exports_at_once_are_bounded() -> None:
    """One more than allowed is refused at once with a time to come back, and asks nothing."""

    async def scenario() -> None:
        exports = Exports()
        for _ in range(EXPORTS_MAX):
            exports.begin(ask_of(), Numbers(rows=100_000), Client(reads=1).done)
        parts, client = Numbers(), Client()
        assert exports.begin(ask_of(), parts, client.done) is None
        assert isinstance(client.outcome, Overloaded)
        assert client.outcome.retry_after_ms
        assert (0, EXPORTS_MAX) == (parts.asked, exports.under_way)

    run(scenario())


NEGOTIATIONS = [
    (b"", (True, False)),
    (b",", (True, False)),
    (b"*/*", (True, False)),
    (b"application/*", (True, False)),
    (b"application/json", (True, False)),
    (b"application/jsonl", (False, True)),
    (b"Application/JSONL", (False, True)),
    (b"application/jsonl;q=0", (False, False)),
    (b"application/jsonl;q=0.000", (False, False)),
    (b"application/jsonl, application/json", (True, False)),
    (b"application/jsonl, */*", (True, True)),
    (b"application/jsonl;q=0.5, */*", (True, False)),
    (b"application/jsonl, */*;q=0.1", (True, True)),
    (b"application/jsonl;q=0.9, application/json;q=0.8", (True, True)),
    (b"application/jsonl;q=0.8, application/json;q=0.9", (True, False)),
    (b"application/json;q=0, */*", (False, True)),
    (b"application/json;q=0.2, */*", (True, False)),
    (b"text/html, */*;q=0.0", (False, False)),
    (b"text/html", (False, False)),
    (b"application/json;charset=utf-8;q=0", (False, False)),
    (b"application/jsonl ; q = 0.5", (False, True)),
    (b"application/jsonl;q=nonsense", (False, True)),
]


@pytest.mark.parametrize(("accept", "expected"), NEGOTIATIONS)
def test_negotiation(accept: bytes, expected: tuple[bool, bool]) -> None:
    """Whether JSON will do, and whether lines are liked better: by name and weight."""
    headers = RequestHeaders([(b"accept", accept)])
    headers.settle()

    assert expected == (headers.accepts_json, headers.prefers_lines)
    assert headers.is_plain == (expected == (True, False))
