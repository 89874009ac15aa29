"""The count beside a page: asked for together, told together, and never called more than it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from modeldefs import Page, query
from modeldefs.kit.asks import ONE_SHARD, Ask, GroupsOutcome, Outcome, PageOutcome, Served, Shards
from modeldefs.kit.detours import submit_as_preferred
from modeldefs.kit.preferences import Honoured, honoured, read_preferences
from modeldefs.kit.replies import ReplyMaker
from modeldefs.kit.waiting import Waiters
from modeldefs.wire import calls
from modeldefs.wire.admission import Admission
from modeldefs.wire.http1 import HttpRequest
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import DeadlineExceeded, InvalidRequest, Problem, ShardFault
from tests.definitions_shop.shop import Customer
from tests.unit.kit.planning import plan_of, resolved

EXACT = Honoured(b"count=exact", count="exact")
ESTIMATED = Honoured(b"count=estimated", count="estimated")
PARTLY = Shards(2, 1, 0.5, (ShardFault("s2", "refused", 1.0),))


@resolved
@query(order="name")
def customers(*, name: str | None = None) -> Page[Customer]:
    """All customers, or those of a name."""
    return Customer.objects.given(name=name)


class Held:
    """A backend that answers when the test says so."""

    is_part = False

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.dones: list[Callable[[Outcome], None]] = []
        self.given_up = 0

    def submit(self, ask: Ask, done: Callable[[Outcome], None]) -> Callable[[], None]:
        """Hold it."""
        self.asks.append(ask)
        self.dones.append(done)
        return self._give_up

    def _give_up(self) -> None:
        self.given_up += 1

    def cost(self, ask: Ask) -> int:
        """Return 1."""
        return 1


def ask(prefers: Honoured) -> Ask:
    """Return an ask for a page behind a cursor."""
    principal = Principal("kid", "owner", ("*",), "live")
    return Ask(
        Served(customers), plan_of(customers, "name"), 1, {"name": "Ada"}, 2, ["Ada", 1],
        principal, "r", 1_000, prefers=prefers,
    )  # fmt: skip


def page(shards: Shards = ONE_SHARD) -> PageOutcome:
    """Return a page of two rows."""
    return PageOutcome(b'{"id":"1"},{"id":"2"}', None, False, shards)


def count(rows: int, guesses: int = 0, shards: Shards = ONE_SHARD) -> GroupsOutcome:
    """Return what the shards have counted."""
    return GroupsOutcome([[rows, guesses]], shards)


@pytest.mark.parametrize(("prefers", "about"), [(EXACT, calls.COUNT), (ESTIMATED, calls.ESTIMATE)])
def test_the_count_is_of_all_pages(prefers: Honoured, about: str) -> None:
    """The same parameters and shards, without cursor and limit."""
    backend, asked = Held(), ask(prefers)
    submit_as_preferred(backend, Waiters(Admission()), asked, lambda outcome: None)
    first, second = backend.asks

    assert first is asked
    assert (second.about, second.after, second.limit) == (about, None, 0)
    assert second.plan is not None
    assert asked.plan is not None
    assert second.plan.route == asked.plan.route
    assert second.call(is_hop=True).about == about
    assert first.call(is_hop=True).about == ""


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_page_is_told_when_both_are_there(order: tuple[int, int]) -> None:
    """Whichever comes first."""
    backend, told = Held(), list[Any]()
    submit_as_preferred(backend, Waiters(Admission()), ask(EXACT), told.append)
    outcomes: list[Outcome] = [page(), count(7)]
    backend.dones[order[0]](outcomes[order[0]])
    before = list(told)
    backend.dones[order[1]](outcomes[order[1]])

    assert before == []
    ((outcome),) = told
    assert outcome.count == (7, True)


@pytest.mark.parametrize("place", [0, 1])
def test_a_page_without_its_count_is_a_problem(place: int) -> None:
    """An answer is never less than what was asked: the other is given up, and told nothing."""
    backend, told = Held(), list[Any]()
    submit_as_preferred(backend, Waiters(Admission()), ask(EXACT), told.append)
    backend.dones[place](DeadlineExceeded())
    backend.dones[1 - place](page() if place else count(7))

    assert [each.code for each in told if isinstance(each, Problem)] == ["deadline-exceeded"]
    assert len(told) == 1
    assert backend.given_up == 2


def test_hanging_up_gives_up_both() -> None:
    """And what they bring is told to nobody."""
    backend, told = Held(), list[Any]()
    give_up = submit_as_preferred(backend, Waiters(Admission()), ask(EXACT), told.append)
    assert give_up is not None
    give_up()
    backend.dones[0](page())
    backend.dones[1](count(7))

    assert backend.given_up == 2
    assert told == []


@pytest.mark.parametrize(
    ("found", "counted", "is_exact"),
    [
        (page(), count(7), True),
        (page(), count(70_000, 1), False),
        (page(PARTLY), count(7), False),
        (page(), count(7, 0, PARTLY), False),
    ],
)
def test_exact_is_what_every_shard_has_counted(
    found: PageOutcome, counted: GroupsOutcome, is_exact: bool
) -> None:
    """A guess of one shard, or a missing one, makes the whole number one that is not exact."""
    backend, told = Held(), list[Any]()
    asked = ask(ESTIMATED)
    submit_as_preferred(backend, Waiters(Admission()), asked, told.append)
    backend.dones[0](found)
    backend.dones[1](counted)
    maker = ReplyMaker(cursor_key=b"c" * 32, clock=lambda: 0.0)
    reply = maker.reply(asked, told[0], HttpRequest(b"GET", b"/customers", b"", [], b"", ""))

    assert json.loads(reply.body)["count"] == {"value": counted.rows[0][0], "exact": is_exact}
    assert dict(reply.headers)[b"preference-applied"] == b"count=estimated"


def test_a_page_has_no_count_unasked() -> None:
    """And one ask is all that is made of it."""
    backend, told = Held(), list[Any]()
    asked = ask(Honoured(b"count=none"))
    submit_as_preferred(backend, Waiters(Admission()), asked, told.append)
    backend.dones[0](page())

    assert len(backend.asks) == 1
    assert told[0].count is None


@pytest.mark.parametrize(
    ("header", "is_export", "counts"),
    [
        (b"count=exact", False, "exact"),
        (b"count=Estimated", False, "estimated"),
        (b"count=none", False, ""),
        (b"count", False, ""),
        (b"count=some", False, ""),
        (b"count=exact", True, ""),
    ],
)
def test_what_is_counted_is_what_was_asked(header: bytes, is_export: bool, counts: str) -> None:
    """The lines of an export are not counted, nor is what is no kind of count."""
    preferences = read_preferences(header)
    assert preferences is not None

    assert honoured(preferences, customers, is_export=is_export).count == counts


@pytest.mark.parametrize("is_export", [False, True])
def test_strictly_a_count_that_is_not_made_is_refused(is_export: bool) -> None:
    """Where it has no meaning."""
    preferences = read_preferences(b"handling=strict, count=" + (b"exact" if is_export else b"x"))
    assert preferences is not None
    with pytest.raises(InvalidRequest) as refused:
        honoured(preferences, customers, is_export=is_export)

    assert [error.code for error in refused.value.errors] == ["unsupported-preference"]
