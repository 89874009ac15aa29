"""Conditional requests: what is read of the headers, kept by an answer, and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db.models.functions import Lower
from hypothesis import given
from hypothesis import strategies as st

from modeldefs import Page, mutation, query
from modeldefs.kit.asks import ONE_SHARD, Ask, PageOutcome, Served, Shards, Written
from modeldefs.kit.conditions import (
    IF_MATCH,
    IF_NONE_MATCH,
    TAGS_MAX,
    Conditions,
    Tags,
    conditions_of,
    read_tags,
)
from modeldefs.kit.many import ManyEndpoint
from modeldefs.kit.preferences import Honoured
from modeldefs.kit.replies import ReplyMaker
from modeldefs.kit.request_headers import RequestHeaders
from modeldefs.kit.row_versions import check_required, version_of
from modeldefs.wire.calls import ABSENT, ANY_VERSION
from modeldefs.wire.http1 import HttpReply, HttpRequest
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import (
    InvalidRequest,
    PreconditionRequired,
    ShardFault,
    Stale,
)
from tests.definitions_shop.shop import Customer, Order
from tests.unit.kit.planning import code_of, plan_of, resolved

ROW = b'{"id":"1"}'
HASH = version_of(ROW)


@resolved
@query
def customer(*, id: int) -> Customer | None:
    """One customer."""
    return Customer.objects.filter(id=id).one()


@query
def named(*, name: str) -> Customer | None:
    """One customer, on whichever shard."""
    return Customer.objects.filter(name=name).one()


@query
def annotated(*, id: int) -> Customer | None:
    """More than the row of one customer."""
    return Customer.objects.filter(id=id).annotate(shown=Lower("name")).one()  # type: ignore[return-value]


@resolved
@query(order="id")
def everybody() -> Page[Customer]:
    """All customers."""
    return Customer.objects.all()


@resolved
@mutation
def rename(*, id: int, name: str) -> Customer:
    """Rename a customer."""
    return Customer.objects.filter(id=id).update_one(name=name)


@resolved
@mutation(if_match="required")
def rename_known(*, id: int, name: str) -> Customer:
    """Rename a customer whose version is known."""
    return Customer.objects.filter(id=id).update_one(name=name)


@resolved
@mutation(on=Order)
def cancel_all(*, customer_id: int) -> int:
    """Remove the orders of a customer."""
    return Order.objects.filter(customer_id=customer_id).delete()[0]


@resolved
@mutation(on=Customer, many="add_customers")
def add_customer(*, id: int, name: str) -> Customer:
    """Add a customer."""
    return Customer.objects.create(id=id, name=name)


def headers(**values: bytes) -> RequestHeaders:
    """Return headers, settled."""
    found = RequestHeaders([(n.replace("_", "-").encode(), v) for n, v in values.items()])
    found.settle()
    return found


def conditions(endpoint: Any, method: bytes = b"GET", **values: bytes) -> Conditions | None:
    """Return the conditions of a request."""
    return conditions_of(headers(**values), endpoint, method, is_export=False)


def refusal(endpoint: Any, method: bytes = b"GET", **values: bytes) -> tuple[str | None, str]:
    """Return which header is refused, and by which code."""
    with pytest.raises(InvalidRequest) as refused:
        conditions(endpoint, method, **values)
    (error,) = refused.value.errors
    return error.parameter, error.code


@pytest.mark.parametrize(
    ("value", "strong", "weak"),
    [
        (b'"a"', {b"a"}, set()),
        (b'W/"a"', set(), {b"a"}),
        (b'"a","b"', {b"a", b"b"}, set()),
        (b' "a" ,\t W/"b" ', {b"a"}, {b"b"}),
        (b'"a",, "b",', {b"a", b"b"}, set()),
        (b'""', {b""}, set()),
        (b'"a,b", "W/"', {b"a,b", b"W/"}, set()),
        (b'"\xff!#"', {b"\xff!#"}, set()),
    ],
)
def test_lists_of_tags_are_read(value: bytes, strong: set[bytes], weak: set[bytes]) -> None:
    """As RFC 9110 writes them: commas in quotes separate nothing, empty elements are none."""
    assert read_tags(IF_MATCH, value) == Tags(False, frozenset(strong), frozenset(weak))


@pytest.mark.parametrize("value", [b"*", b" * ", b"\t*"])
def test_a_star_is_any(value: bytes) -> None:
    """Alone only."""
    assert read_tags(IF_MATCH, value) == Tags(is_any=True)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"a", "wrong-type"),
        (b'"a', "wrong-type"),
        (b'a"', "wrong-type"),
        (b'"a" "b"', "wrong-type"),
        (b'w/"a"', "wrong-type"),
        (b'W/ "a"', "wrong-type"),
        (b'"a b"', "wrong-type"),
        (b'*, "a"', "wrong-type"),
        (b'"a", *', "wrong-type"),
        (b"", "out-of-range"),
        (b" , ", "out-of-range"),
        (b", ".join(b'"%d"' % n for n in range(TAGS_MAX + 1)), "out-of-range"),
        (b'"%b"' % (b"a" * 2_048), "too-long"),
    ],
)
def test_what_is_no_list_of_tags_is_refused(value: bytes, code: str) -> None:
    """A condition that is not understood is never passed over."""
    assert refusal(customer, if_none_match=value) == (IF_NONE_MATCH, code)
    assert refusal(rename, b"POST", if_match=value) == (IF_MATCH, code)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(value: bytes) -> None:
    """Nothing else comes of a header, whatever is in it."""
    found: Tags | None = None
    refused: list[str | None] = []
    try:
        found = read_tags(IF_MATCH, value)
    except InvalidRequest as refusal_of_it:
        refused = [error.parameter for error in refusal_of_it.errors]

    assert refused == ([IF_MATCH] if found is None else [])
    assert found is None or found.is_any != bool(found.strong or found.weak)


@pytest.mark.parametrize(
    ("endpoint", "method", "values", "header"),
    [
        (everybody, b"GET", {"if_match": b'"a"'}, IF_MATCH),
        (customer, b"POST", {"if_none_match": b'"a"'}, IF_NONE_MATCH),
        (rename, b"POST", {"if_none_match": b'"a"'}, IF_NONE_MATCH),
        (cancel_all, b"POST", {"if_match": b"*"}, IF_MATCH),
        (cancel_all, b"POST", {"if_none_match": b"*"}, IF_NONE_MATCH),
        (rename, b"POST", {"if_none_match": b"*", "if_match": b"*"}, IF_NONE_MATCH),
    ],
)
def test_a_condition_that_cannot_be_kept_is_refused(
    endpoint: Any, method: bytes, values: dict[str, bytes], header: str
) -> None:
    """Who sent it did not want the request done without it."""
    assert refusal(endpoint, method, **values) == (header, "unsupported-condition")


def test_a_condition_of_an_export_is_refused() -> None:
    """Its lines have no ETag."""
    with pytest.raises(InvalidRequest) as refused:
        conditions_of(headers(if_match=b'"a"'), everybody, b"GET", is_export=True)

    assert [error.code for error in refused.value.errors] == ["unsupported-condition"]


def test_a_batch_takes_no_condition() -> None:
    """Its rows are many."""
    batch = resolved(ManyEndpoint(add_customer))

    assert refusal(batch, b"POST", if_match=b"*") == (IF_MATCH, "unsupported-condition")
    assert refusal(batch, b"POST", if_none_match=b"*") == (IF_NONE_MATCH, "unsupported-condition")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"if_match": b'"b", W/"c", "a"'}, ["a", "b"]),
        ({"if_match": b'W/"c"'}, []),
        ({"if_match": b"*"}, [ANY_VERSION]),
        ({"if_none_match": b"*"}, [ABSENT]),
    ],
)
def test_a_write_carries_its_condition_to_the_shard(
    values: dict[str, bytes], expected: list[str]
) -> None:
    """Weak tags are left out: no row has a weak version. Without a header there is none."""
    found = conditions(rename, b"POST", **values)

    assert found is not None
    assert ask(rename, conditions=found).call(is_hop=True).condition == expected
    assert conditions(rename, b"POST") is None
    assert ask(rename).call(is_hop=True).condition is None


def test_a_write_that_demands_a_condition_is_not_done_without() -> None:
    """428; `If-None-Match` is another condition than the one that is demanded."""
    for values in ({}, {"if_none_match": b"*"}):
        with pytest.raises(PreconditionRequired):
            conditions(rename_known, b"POST", **values)

    assert conditions(rename_known, b"POST", if_match=b'"a"') is not None


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"if_match": "required"}, ""),
        ({"if_match": "required", "many": "several"}, "if-match-without-row"),
        ({"if_match": "perhaps"}, "bad-if-match"),
    ],
)
def test_a_definition_that_could_not_keep_it_is_refused(options: Any, code: str) -> None:
    """When it is loaded, not when it is called."""

    @mutation(**options)
    def put(*, id: int, name: str) -> Customer:
        return Customer.objects.create(id=id, name=name)

    assert code_of(lambda: check_required(resolved(put))) == code


def ask(endpoint: Any, *present: str, **more: Any) -> Ask:
    """Return an ask for an endpoint."""
    principal = Principal("kid", "owner", ("*",), "live")
    plan = None if endpoint.kind == "mutation" else plan_of(endpoint, *present)
    values = {"id": "1"} if endpoint.kind == "mutation" else {}
    return Ask(Served(endpoint), plan, 0, values, 1, None, principal, "r", 1_000, **more)


def reply(asked: Ask, outcome: Any) -> tuple[HttpReply, dict[bytes, bytes]]:
    """Return the reply to a GET, and its headers."""
    maker = ReplyMaker(cursor_key=b"c" * 32, clock=lambda: 0.0)
    request = HttpRequest(b"GET", asked.served.path, b"", [], b"", "")
    answered = maker.reply(asked, outcome, request)
    return answered, dict(answered.headers)


def row(value: bytes = ROW, shards: Shards = ONE_SHARD) -> PageOutcome:
    """Return what a backend found."""
    return PageOutcome(value, None, False, shards)


def test_a_row_has_its_version_as_its_etag() -> None:
    """Strong where one shard answers a whole row: the same that a write answers."""
    read, told = reply(ask(customer, "id"), row())
    _, written = reply(ask(rename), Written(ROW))

    assert json.loads(read.body)["value"] == {"id": "1"}
    assert told[b"etag"] == written[b"etag"] == b'"%b"' % HASH


def test_what_is_no_whole_row_has_a_tag_that_no_row_has() -> None:
    """An annotation may change while the row does not, and the reverse."""
    assert reply(ask(annotated, "id"), row())[1][b"etag"] == b'"a-%b"' % HASH
    assert reply(ask(customer, "id"), row(b""))[1][b"etag"] == b'"a-%b"' % version_of(b"null")


def test_the_answer_of_several_shards_has_a_weak_tag() -> None:
    """Its envelope names how many were asked, which a row's version does not know."""
    assert reply(ask(named, "name"), row(ROW, Shards(2, 2)))[1][b"etag"] == b'W/"%b"' % HASH


def test_an_answer_that_lacks_shards_has_no_tag_and_is_never_unchanged() -> None:
    """It may be another one as soon as the shard is back."""
    partly = Shards(2, 1, 0.5, (ShardFault("s2", "refused", 1.0),))
    answered, told = reply(
        ask(named, "name", conditions=Conditions(none_match=Tags(strong=frozenset({HASH})))),
        row(ROW, partly),
    )

    assert answered.status == 200
    assert b"etag" not in told


@pytest.mark.parametrize(
    "none_match",
    [
        Tags(strong=frozenset({b"x", HASH})),
        Tags(weak=frozenset({HASH})),
        Tags(is_any=True),
    ],
)
def test_what_the_reader_has_is_not_sent_again(none_match: Tags) -> None:
    """304, with what a cache needs to know and no body."""
    answered, told = reply(
        ask(customer, "id", conditions=Conditions(none_match=none_match)), row()
    )

    assert (answered.status, answered.body) == (304, b"")
    assert told[b"etag"] == b'"%b"' % HASH
    assert {b"cache-control", b"vary", b"x-request-id"} <= set(told)
    assert b"content-type" not in told


def test_another_tag_gets_the_answer() -> None:
    """200, with the tag of now."""
    other = Conditions(none_match=Tags(strong=frozenset({b"0" * 32})))
    answered, told = reply(ask(customer, "id", conditions=other), row())

    assert answered.status == 200
    assert told[b"etag"] == b'"%b"' % HASH


@pytest.mark.parametrize(
    ("match", "is_kept"),
    [
        (Tags(strong=frozenset({HASH})), True),
        (Tags(is_any=True), True),
        (Tags(strong=frozenset({b"0" * 32})), False),
        (Tags(weak=frozenset({HASH})), False),
    ],
)
def test_a_read_may_demand_a_version(match: Tags, is_kept: bool) -> None:
    """Compared strongly."""
    asked = ask(customer, "id", conditions=Conditions(match=match))
    if is_kept:
        assert reply(asked, row())[0].status == 200
    else:
        with pytest.raises(Stale):
            reply(asked, row())


@pytest.mark.parametrize("outcome", [Stale(), Written(b"null")])
def test_what_is_no_row_has_no_tag(outcome: Any) -> None:
    """A refusal, or a write that answers none."""
    assert b"etag" not in reply(ask(rename), outcome)[1]


def test_a_dry_run_has_no_tag() -> None:
    """The row that it answers is not stored."""
    rolled = Honoured(b"tx=rollback", rollback=True)

    assert b"etag" not in reply(ask(rename, prefers=rolled), Written(ROW))[1]


def test_a_write_without_content_has_its_tag() -> None:
    """What a client that wants no body needs to write again."""
    minimal = Honoured(b"return=minimal", minimal=True)
    answered, told = reply(ask(rename, prefers=minimal), Written(ROW))

    assert (answered.status, answered.body) == (204, b"")
    assert told[b"etag"] == b'"%b"' % HASH
