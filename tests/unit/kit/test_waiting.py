"""Waiting for news: until there is some, the time is up, or the client has gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from modeldefs import Page, aggregate, count, query
from modeldefs.kit.asks import ONE_SHARD, Ask, GroupsOutcome, Outcome, PageOutcome, Served, Shards
from modeldefs.kit.conditions import Conditions, Tags
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.preferences import WAIT_MAX_S, Honoured, honoured, read_preferences
from modeldefs.kit.row_versions import version_of
from modeldefs.kit.waiting import (
    LAST_READ_S,
    POLL_MANY_S,
    POLL_S,
    WAITERS_MAX,
    LongPoll,
    Waiters,
)
from modeldefs.wire.admission import Admission
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import Conflict, InvalidRequest, Overloaded, ShardFault
from tests.definitions_shop.shop import Customer
from tests.unit.kit.planning import plan_of, resolved

ROW, OTHER = b'{"id":"1"}', b'{"id":"1","name":"x"}'
PARTLY = Shards(2, 1, 0.5, (ShardFault("s2", "refused", 1.0),))


@resolved
@query
def customer(*, id: int) -> Customer | None:
    """One customer."""
    return Customer.objects.filter(id=id).one()


@resolved
@query(order="id")
def customers() -> Page[Customer]:
    """All customers."""
    return Customer.objects.all()


@resolved
@aggregate(on=Customer)
def how_many() -> int:
    """How many there are."""
    return Customer.objects.totals(n=count())


class Clock:
    """A loop whose time passes when a test says so; and a backend that answers from a script."""

    def __init__(self, *script: Outcome | None) -> None:
        self.now = 100.0
        self.script = list(script)  # None: it does not answer
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.left_ms: list[int] = []
        self.given_up = 0
        self.waiters = Waiters(Admission())
        self.waiters.admission.in_flight = 1  # as the front counts the request

    def time(self) -> float:
        """Return the time."""
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Clock:
        """Remember it."""
        self.timers.append((self.now + delay, callback))
        return self

    def cancel(self) -> None:
        """Forget the only timer."""
        self.timers.clear()

    def pass_on(self) -> None:
        """Let the time of the next timer come."""
        self.now, callback = self.timers.pop(0)
        callback()

    def submit(self, ask: Ask, done: Callable[[Outcome], None]) -> Callable[[], None]:
        """Answer as the script says."""
        self.left_ms.append(ask.timeout_ms)
        outcome = self.script.pop(0)
        if outcome is not None:
            done(outcome)

        def give_up() -> None:
            self.given_up += 1

        return give_up

    def begin(self, ask: Ask) -> tuple[list[Outcome], Callable[[], None] | None]:
        """Let an ask wait; what it is told, and how to give it up."""
        told: list[Outcome] = []
        poll = LongPoll(ask, told.append, submit=self.submit, waiters=self.waiters, loop=self)
        return told, poll.begin()


def waiting(
    endpoint: Endpoint[Any, Any] = customer,
    *,
    wait_s: int = 1,
    timeout_ms: int = 10_000,
    known: bytes = version_of(ROW),
) -> Ask:
    """Return an ask that waits."""
    is_single = endpoint is customer
    conditions = Conditions(none_match=Tags(strong=frozenset({known}))) if is_single else None
    return Ask(
        Served(endpoint), plan_of(endpoint, *(["id"] if is_single else [])), 0, {}, 1, None,
        Principal("kid", "owner", ("*",), "live"), "r", timeout_ms,
        prefers=Honoured(b"wait", wait_s=wait_s), conditions=conditions,
    )  # fmt: skip


def page(rows: bytes = ROW, shards: Shards = ONE_SHARD) -> PageOutcome:
    """Return what a backend found."""
    return PageOutcome(rows, None, False, shards)


def test_it_waits_until_there_is_news() -> None:
    """The answer that its reader has is not told; the next one is, at once."""
    clock = Clock(page(), page(), page(OTHER))
    told, _ = clock.begin(waiting())
    quiet = list(told)
    clock.pass_on()
    clock.pass_on()

    assert quiet == []
    assert told == [page(OTHER)]
    assert clock.timers == []
    assert clock.now == pytest.approx(100.0 + 2 * POLL_S)
    assert (clock.waiters.number, clock.waiters.admission.in_flight) == (0, 1)


def test_when_the_time_is_up_the_answer_is_what_it_is() -> None:
    """Never later than was asked for."""
    clock = Clock(*[page()] * 20)
    told, _ = clock.begin(waiting(wait_s=1))
    while clock.timers:
        clock.pass_on()

    assert told == [page()]
    assert clock.now <= 101.0
    assert (clock.waiters.number, clock.waiters.admission.in_flight) == (0, 1)


def test_the_deadline_comes_first() -> None:
    """What is left of it is what each read gets, and the last one gets some."""
    clock = Clock(*[page()] * 40)
    told, _ = clock.begin(waiting(wait_s=20, timeout_ms=2_000))
    while clock.timers:
        clock.pass_on()

    assert told == [page()]
    assert clock.now <= 102.0 - LAST_READ_S
    assert clock.left_ms[0] == 2_000
    assert clock.left_ms == sorted(clock.left_ms, reverse=True)
    assert clock.left_ms[-1] >= LAST_READ_S * 1_000


@pytest.mark.parametrize(
    ("ask", "outcome"),
    [
        (waiting(), page(OTHER)),
        (waiting(), page(b"")),
        (waiting(), Conflict()),
        (waiting(customers), page(ROW)),
        (waiting(customers), page(b"", PARTLY)),
        (waiting(how_many), GroupsOutcome([[0]], ONE_SHARD)),
    ],
)
def test_what_is_new_is_not_waited_with(ask: Ask, outcome: Outcome) -> None:
    """Another answer, none, a refusal, rows, or shards that are missing."""
    clock = Clock(outcome)
    told, _ = clock.begin(ask)

    assert told == [outcome]
    assert clock.timers == []
    assert clock.waiters.number == 0


def test_an_empty_page_waits_for_rows() -> None:
    """Seldomer where every shard is asked each time."""
    clock = Clock(page(b""), page(ROW))
    told, _ = clock.begin(waiting(customers, wait_s=5))
    clock.pass_on()

    assert told == [page(ROW)]
    assert clock.now == pytest.approx(100.0 + POLL_MANY_S)


def test_a_row_that_is_not_there_is_waited_for() -> None:
    """By the ETag of null."""
    clock = Clock(page(b""), page(ROW))
    told, _ = clock.begin(waiting(known=b"a-" + version_of(b"null")))
    clock.pass_on()

    assert told == [page(ROW)]


def test_who_sleeps_takes_no_room() -> None:
    """The process has as many requests under way as if it were not there; and the time it slept
    is not taken for slowness."""
    clock = Clock(page(), page(OTHER))
    ask = waiting()
    clock.begin(ask)
    asleep = clock.waiters.admission.in_flight
    clock.pass_on()

    assert (asleep, clock.waiters.admission.in_flight) == (0, 1)
    assert ask.waited_s == pytest.approx(POLL_S)


@pytest.mark.parametrize(("script", "given_up"), [([page()], 0), ([None], 1)])
def test_hanging_up_ends_it(script: list[Outcome | None], given_up: int) -> None:
    """Asleep or while it reads: nothing runs on, and its place is free."""
    clock = Clock(*script)
    told, give_up = clock.begin(waiting())
    assert give_up is not None
    give_up()
    give_up()

    assert told == []
    assert clock.timers == []
    assert clock.given_up == given_up
    assert (clock.waiters.number, clock.waiters.admission.in_flight) == (0, 1)


def test_so_many_wait_and_no_more() -> None:
    """The next one is refused at once, and nothing is read for it."""
    clock = Clock(*[page()] * WAITERS_MAX)
    for _ in range(WAITERS_MAX):
        clock.waiters.admission.in_flight += 1
        clock.begin(waiting())
    told, _ = clock.begin(waiting())

    assert [type(each) for each in told] == [Overloaded]
    assert clock.waiters.number == WAITERS_MAX
    assert clock.script == []


@pytest.mark.parametrize(
    ("endpoint", "header", "wait_s"),
    [
        (customer, b"wait=7", 7),
        (customer, b"wait=99999", WAIT_MAX_S),
        (customers, b"wait=1", 1),
        (customer, b"wait=0", 0),
        (customer, b"wait", 0),
        (customer, b"wait=-1", 0),
        (customer, b"wait=1.5", 0),
        (how_many, b"wait=7", 0),
    ],
)
def test_how_long_is_asked_for(endpoint: Any, header: bytes, wait_s: int) -> None:
    """Whole seconds, up to a bound; of what may be waited for."""
    preferences = read_preferences(header)
    assert preferences is not None

    assert honoured(preferences, endpoint).wait_s == wait_s


def test_strictly_a_wait_that_means_nothing_is_refused() -> None:
    """An aggregate always has an answer."""
    preferences = read_preferences(b"handling=strict, wait=7")
    assert preferences is not None
    with pytest.raises(InvalidRequest):
        honoured(preferences, how_many)
