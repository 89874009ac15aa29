"""What a client reads of an answer that lacks shards, and where it is refused instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modeldefs import Page, aggregate, count, mutation, query
from modeldefs.kit.answers import walked_outcome
from modeldefs.kit.asks import Answer, Ask, GroupsOutcome, PageOutcome, Served, Shards, Written
from modeldefs.kit.preferences import Honoured
from modeldefs.kit.replies import ReplyMaker, cursor_binding
from modeldefs.kit.walks import LAGGING_RANGES_MAX
from modeldefs.wire import calls
from modeldefs.wire.cursors import Lagging, Stand, read_cursor
from modeldefs.wire.http1 import HttpReply, HttpRequest
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import ShardFault, ShardUnavailable
from tests.definitions_shop.shop import Customer
from tests.unit.kit.planning import plan_of, resolved

KEY = b"c" * 32
NOW = 1_790_000_000.0
GONE = Shards(4, 3, 0.75, (ShardFault("s2", "refused", 1.26),))
PARTIAL = Honoured(b"partial", partial=True)


@resolved
@query(order="name")
def by_name() -> Page[Customer]:
    """All customers."""
    return Customer.objects.all()


@query
def named(*, name: str) -> Customer:
    """The customer of a name."""
    return Customer.objects.filter(name=name).one()  # type: ignore[return-value]


@query
def perhaps_named(*, name: str) -> Customer | None:
    """The customer of a name, if there is one."""
    return Customer.objects.filter(name=name).one()


@aggregate(on=Customer)
def how_many() -> int:
    """How many there are."""
    return Customer.objects.totals(n=count())


@resolved
@mutation(on=Customer)
def remove(*, id: int) -> int:
    """Remove a customer."""
    return Customer.objects.filter(id=id).delete()[0]


def ask_of(endpoint: Any, *present: str, **more: Any) -> Ask:
    """Return an ask that prefers a partial answer."""
    principal = Principal("k", "owner", ("*",), "live")
    plan = None if endpoint.kind == "mutation" else plan_of(endpoint, *present)
    known: dict[str, Any] = {"prefers": PARTIAL} | more
    return Ask(Served(endpoint), plan, 0, {}, 2, None, principal, "r", 1_000, **known)


def reply_of(ask: Ask, outcome: Answer) -> tuple[HttpReply, dict[bytes, bytes]]:
    """Return the reply to a GET, and its headers."""
    maker = ReplyMaker(cursor_key=KEY, clock=lambda: NOW)
    request = HttpRequest(b"GET", ask.served.path, b"limit=2", [], b"", "")
    reply = maker.reply(ask, outcome, request)
    return reply, dict(reply.headers)


def test_a_partial_page_says_so_and_is_not_stored() -> None:
    """Body and headers name what is missing; the cursor holds where the missing ranges stand."""
    lagging = (Lagging(None, ((0, 4_095),)),)
    ask = ask_of(by_name)
    reply, headers = reply_of(ask, PageOutcome(b'{"id":"1"}', ["a", 1], True, GONE, lagging))
    body = json.loads(reply.body)
    binding = cursor_binding(ask.served, {}, ask.principal)

    assert 200 == reply.status
    assert {
        "asked": 4, "answered": 3, "coverage": 0.75,
        "missing": [{"id": "s2", "code": "refused", "ms": 1.3}],
    } == body["shards"]  # fmt: skip
    assert (b"no-store", b"0.75", b"partial") == (
        headers[b"cache-control"], headers[b"shardpoint-coverage"], headers[b"preference-applied"]
    )  # fmt: skip
    assert b"prefer" in headers[b"vary"]
    assert body["next"].encode() in headers[b"link"]
    assert b"retry-after" not in headers
    assert Stand(["a", 1], lagging) == read_cursor(
        KEY, body["next"], endpoint="by_name", binding=binding, now=NOW
    )


def test_an_empty_page_goes_on_and_says_when() -> None:
    """Nobody who answered has a row: the walk is not over, and waits."""
    reply, headers = reply_of(ask_of(by_name), PageOutcome(b"", None, True, GONE))

    assert [] == json.loads(reply.body)["items"]
    assert json.loads(reply.body)["next"] is not None
    assert b"1" == headers[b"retry-after"]


def test_a_cursor_that_would_be_refused_is_not_given() -> None:
    """Longer than a cursor may be: 503 that names the shards, never a page that leads nowhere."""
    lagging = (Lagging(["x" * 1_600, 1], ((0, 4_095),)),)
    reply, _ = reply_of(ask_of(by_name), PageOutcome(b"{}", ["a", 1], True, GONE, lagging))

    assert (503, "s2") == (reply.status, json.loads(reply.body)["shards"][0]["id"])


def test_a_walk_in_too_many_places_waits() -> None:
    """Beyond what a cursor holds the page is refused, not told without its missing ranges."""
    part = calls.PagePart([b"{}"], [["a", 1]], False)
    scattered = tuple((2 * n, 2 * n) for n in range(LAGGING_RANGES_MAX + 1))
    fits = walked_outcome(ask_of(by_name), [part], GONE, scattered[:-1])

    assert LAGGING_RANGES_MAX == sum(len(each.ranges) for each in fits.lagging)
    with pytest.raises(ShardUnavailable) as caught:
        walked_outcome(ask_of(by_name), [part], GONE, scattered)
    assert ("s2",) == tuple(fault.id for fault in caught.value.shards)


def test_a_row_that_a_missing_shard_may_have_is_not_denied() -> None:
    """Not found while a shard is missing: 503, since nobody knows; where the endpoint answers
    null, null beside what is missing. With all shards there it is 404."""
    empty, whole = PageOutcome(b"", None, False, GONE), Shards(4, 4)
    refused, _ = reply_of(ask_of(named, "name"), empty)
    absent, _ = reply_of(ask_of(named, "name"), PageOutcome(b"", None, False, whole))
    perhaps, headers = reply_of(ask_of(perhaps_named, "name"), empty)

    assert (503, 404) == (refused.status, absent.status)
    assert None is json.loads(perhaps.body)["value"]
    assert ["s2"] == [each["id"] for each in json.loads(perhaps.body)["shards"]["missing"]]
    assert b"no-store" == headers[b"cache-control"]


def test_a_partial_total_says_so() -> None:
    """Aggregates carry coverage and what is missing too."""
    reply, headers = reply_of(ask_of(how_many), GroupsOutcome([[7]], GONE))

    assert (7, 0.75) == (
        json.loads(reply.body)["value"], json.loads(reply.body)["shards"]["coverage"]
    )  # fmt: skip
    assert b"0.75" == headers[b"shardpoint-coverage"]


def test_a_whole_answer_to_who_would_take_a_part() -> None:
    """Nothing is missing: the ordinary answer, with the preference echoed."""
    reply, headers = reply_of(ask_of(by_name), PageOutcome(b"", None, False, Shards(4, 4)))

    assert {"asked": 4, "answered": 4, "missing": [], "coverage": 1} == json.loads(reply.body)[
        "shards"
    ]
    assert (b"private, no-cache", b"partial") == (
        headers[b"cache-control"], headers[b"preference-applied"]
    )  # fmt: skip
    assert b"shardpoint-coverage" not in headers


def test_a_minimal_answer_has_no_body() -> None:
    """204: no body, no type of one; a replay says so still."""
    prefers = Honoured(b"return=minimal", minimal=True)
    reply, headers = reply_of(ask_of(remove, prefers=prefers), Written(b"1", replayed=True))

    assert (204, b"") == (reply.status, reply.body)
    assert b"content-type" not in headers
    assert (b"return=minimal", b"true", b"r") == (
        headers[b"preference-applied"], headers[b"idempotency-replayed"], headers[b"x-request-id"]
    )  # fmt: skip
