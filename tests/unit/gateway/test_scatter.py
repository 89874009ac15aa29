"""An ask to several shards of which some do not answer: refused whole, or answered in part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher_site.gateway.roads import Roads
from dispatcher_site.gateway.scatter import Scatter
from dispatcher_site.routing.shard_map import ShardMap
from modeldefs import Page, aggregate, count, query
from modeldefs.kit.asks import Ask, GroupsOutcome, Outcome, PageOutcome, Served
from modeldefs.kit.preferences import Honoured
from modeldefs.wire import calls
from modeldefs.wire.cursors import Lagging
from modeldefs.wire.deadlines import Deadlines
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import DefinitionFault, Overloaded, Problem, StorageFull
from tests.definitions_shop.shop import Customer
from tests.unit.kit.planning import plan_of

MAP = ShardMap.of(3, [(0, 4_095, "s1", 1), (4_096, 8_191, "s2", 1), (8_192, 16_383, "s3", 3)])
PATIENCE_S = 20.0
Answer = tuple[int, bytes] | None  # None: never


@query(order="id")
def everybody() -> Page[Customer]:
    """All customers."""
    return Customer.objects.all()


@aggregate(on=Customer)
def how_many() -> int:
    """How many there are."""
    return Customer.objects.totals(n=count())


@dataclass
class Shard:
    """A stream to a shard that answers what it was told to."""

    answer: Callable[[calls.Call], Answer]
    asked: list[calls.Call] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    connected: bool = True

    def send(self, *, body: bytes, done: Callable[[int, bytes], None], **known: Any) -> int:
        """Take a call and answer it later."""
        call = calls.decode_call(body)
        self.asked.append(call)
        answer = self.answer(call)
        if answer is not None:
            asyncio.get_running_loop().call_soon(done, *answer)
        return len(self.asked)

    def forget(self, request_id: int) -> None:
        """Note it."""
        self.forgotten.append(request_id)


def rows(*numbers: int, more: bool = False) -> Callable[[calls.Call], Answer]:
    """Answer with these rows."""
    part = calls.PagePart([b"%d" % n for n in numbers], [[n] for n in numbers], more)
    return lambda call: (calls.WHOLE, calls.encode(part))


def refuses(problem: Problem) -> Callable[[calls.Call], Answer]:
    """Answer with a problem."""
    return lambda call: (problem.status, calls.encode(problem.to_wire()))


def breaks(code: bytes) -> Callable[[calls.Call], Answer]:
    """Break off, as the stream says it."""
    return lambda call: (0, code)


def hangs(call: calls.Call) -> Answer:
    """Never answer."""
    return None


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    """Return a loop of the test's own."""
    with asyncio.Runner() as runner:
        yield runner


def ask_of(endpoint: Any, *, is_partial: bool = True, **more: Any) -> Ask:
    """Return an ask to all shards."""
    principal = Principal("k", "", (), "live")
    known: dict[str, Any] = {"limit": 4, "after": None, "timeout_ms": 60_000} | more
    plan = plan_of(endpoint)
    return Ask(
        Served(endpoint), plan, 0, {}, known.pop("limit"), known.pop("after"), principal, "r",
        known.pop("timeout_ms"), prefers=Honoured(partial=is_partial), **known,
    )  # fmt: skip


def outcome_of(loop: asyncio.Runner, ask: Ask, *shards: Shard | None) -> Outcome:
    """Return the one outcome of an ask to s1, s2, s3; None is a shard without a stream."""
    by_name = dict(zip(("s1", "s2", "s3"), shards, strict=True))

    async def run() -> Outcome:
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        streams: Any = SimpleNamespace(
            client=by_name.get, state_of=lambda shard: "quarantined", is_open=lambda shard: True
        )
        keeper: Any = SimpleNamespace(state=SimpleNamespace(shard_map=MAP))
        deadlines = Deadlines(interval_s=0.001)
        roads = Roads(keeper, streams, deadlines, asyncio.get_running_loop())
        Scatter(ask, ended.set_result, roads).begin()
        return await asyncio.wait_for(ended, PATIENCE_S)

    return loop.run(run())


def reasons(outcome: Any) -> list[tuple[str, str]]:
    """Return the shards that an outcome names, and why."""
    faults = outcome.shards if isinstance(outcome, Problem) else outcome.shards.missing
    return [(fault.id, fault.code) for fault in faults]


ABSENCES = [
    (None, "quarantined"),
    (Shard(breaks(b"shard-reset")), "shard-reset"),
    (Shard(breaks(b"shard-untrusted")), "shard-untrusted"),
    (Shard(breaks(b"saturated")), "saturated"),
    (Shard(refuses(Overloaded())), "overloaded"),
    (Shard(refuses(StorageFull())), "storage-full"),
]


@pytest.mark.parametrize(("gone", "code"), ABSENCES, ids=[code for _, code in ABSENCES])
def test_a_missing_shard_is_named_in_a_partial_answer_and_refused_in_a_whole_one(
    loop: asyncio.Runner, gone: Shard | None, code: str
) -> None:
    """Whatever it is that a shard is missing for: partial has the others' rows, the share of
    buckets that they are about and why it is missing; strict is a problem that names it."""
    partial = outcome_of(loop, ask_of(everybody), Shard(rows(1, 5)), gone, Shard(rows(2)))
    strict = outcome_of(
        loop, ask_of(everybody, is_partial=False), Shard(rows(1, 5)), gone, Shard(rows(2))
    )

    assert isinstance(partial, PageOutcome)
    assert b"1,2,5" == partial.rows
    assert (3, 2, 0.75) == (
        partial.shards.asked, partial.shards.answered, partial.shards.coverage
    )  # fmt: skip
    assert [("s2", code)] == reasons(partial)
    assert isinstance(strict, Problem)
    assert strict.status >= 500


def test_what_a_partial_page_lacks_is_behind_its_cursor(loop: asyncio.Runner) -> None:
    """The page goes on, although no shard that answered has more: the missing shard's buckets
    stand where they stood."""
    page = outcome_of(loop, ask_of(everybody, after=[0]), Shard(rows(1, 5)), None, Shard(rows(2)))

    assert isinstance(page, PageOutcome)
    assert page.more
    assert [5] == page.last
    assert (Lagging([0], ((4_096, 8_191),)),) == page.lagging


def test_late_rows_come_first_and_are_counted(loop: asyncio.Runner) -> None:
    """A shard that is back is asked for its buckets from where they stand, the others from where
    they do; no more is asked for or given, and the walk ends."""
    late, first, last = Shard(rows(3, 4)), Shard(rows(6)), Shard(rows())
    ask = ask_of(
        everybody, after=[5], lagging=(Lagging(None, ((4_096, 8_191),)),), is_partial=False
    )
    page = outcome_of(loop, ask, first, late, last)

    assert isinstance(page, PageOutcome)
    assert (b"3,4,6", False, ()) == (page.rows, page.more, page.lagging)
    assert (2, ()) == (page.shards.late, page.shards.missing)
    assert [(None, "{[4096,8191]}")] == [(call.after, call.buckets) for call in late.asked]
    assert [([5], "{[0,4095]}")] == [(call.after, call.buckets) for call in first.asked]
    assert [([5], "{[8192,16383]}")] == [(call.after, call.buckets) for call in last.asked]


def test_a_shard_with_two_places_is_missing_in_both(loop: asyncio.Runner) -> None:
    """Where one of its two calls fails the rows of the other do not count: the shard is missing
    once, and nothing of it is passed by."""
    half = Shard(lambda call: (rows(1) if call.after == [0] else breaks(b"shard-untrusted"))(call))
    ask = ask_of(everybody, after=[5], lagging=(Lagging([0], ((0, 99),)),))
    page = outcome_of(loop, ask, half, Shard(rows(7)), Shard(rows(8)))

    assert isinstance(page, PageOutcome)
    assert b"7,8" == page.rows
    assert [("s1", "shard-untrusted")] == reasons(page)
    assert (Lagging([0], ((0, 99),)), Lagging([5], ((100, 4_095),))) == page.lagging


def test_a_deadline_gives_what_came_by_then(loop: asyncio.Runner) -> None:
    """Partial: the others' rows, and the hanging shard is told to stop. Strict: 504 names it."""
    hanging = Shard(hangs)
    some = outcome_of(
        loop, ask_of(everybody, timeout_ms=50), Shard(rows(1)), hanging, Shard(rows(2))
    )
    none = outcome_of(
        loop,
        ask_of(everybody, timeout_ms=50, is_partial=False),
        Shard(rows(1)), Shard(hangs), Shard(rows(2)),
    )  # fmt: skip

    assert isinstance(some, PageOutcome)
    assert (b"1,2", [("s2", "deadline-exceeded")]) == (some.rows, reasons(some))
    assert [1] == hanging.forgotten
    assert isinstance(none, Problem)
    assert ("deadline-exceeded", [("s2", "deadline-exceeded")]) == (none.code, reasons(none))


def test_without_any_shard_there_is_no_partial_answer(loop: asyncio.Runner) -> None:
    """All missing is 503 and names them all; if all only took too long it is 504."""
    nobody = outcome_of(loop, ask_of(everybody), None, Shard(refuses(Overloaded())), None)
    slow = outcome_of(loop, ask_of(how_many, timeout_ms=50), *(Shard(hangs) for _ in range(3)))

    assert isinstance(nobody, Problem)
    assert (503, "shard-unavailable") == (nobody.status, nobody.code)
    assert {"s1", "s2", "s3"} == {name for name, _ in reasons(nobody)}
    assert isinstance(slow, Problem)
    assert (504, 3) == (slow.status, len(slow.shards))


def test_a_faulty_definition_is_no_missing_shard(loop: asyncio.Runner) -> None:
    """What is wrong with the request or the endpoint fails it, however partial it may be."""
    outcome = outcome_of(
        loop, ask_of(everybody), Shard(rows(1)), Shard(refuses(DefinitionFault())), Shard(rows(2))
    )

    assert isinstance(outcome, DefinitionFault)


def test_totals_carry_what_is_missing(loop: asyncio.Runner) -> None:
    """A partial total is that of the shards that answered, and says so."""
    part = (calls.WHOLE, calls.encode(calls.GroupPart([[7]])))
    total = outcome_of(
        loop, ask_of(how_many), Shard(lambda call: part), Shard(lambda call: part), None
    )

    assert isinstance(total, GroupsOutcome)
    assert [[14]] == total.rows
    assert (0.5, [("s3", "quarantined")]) == (total.shards.coverage, reasons(total))
