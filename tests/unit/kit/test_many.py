"""Batch endpoints: which are refused when they are loaded, and how their requests are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.catalog import shard_key_parameter
from modeldefs.kit.decorators import mutation
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.many import ManyEndpoint, check_many
from modeldefs.kit.many_requests import ManyReader, QuickMany
from modeldefs.kit.write_plans import write_plan
from modeldefs.wire.problems import InvalidRequest
from tests.definitions_shop.shop import Order

ONE = {
    "id": "7", "first_name": "A", "last_name": "B", "country": "C", "address": "D", "city": "E",
}  # fmt: skip


def order_of_python(*, id: int, customer: int, price: Decimal, placed: datetime) -> Order:
    return Order.objects.create(id=id, customer_id=customer + 1, price=price, placed=placed)


def changed(*, id: int, customer: int) -> Order:
    return Order.objects.filter(id=id).update_one(customer_id=customer)


def without_key(*, customer: int, price: Decimal, placed: datetime) -> Order:
    return Order.objects.create(id=1, customer_id=customer, price=price, placed=placed)


def with_list(*, id: int, customer: int, notes: list[str]) -> Order:
    return Order.objects.create(id=id, customer_id=customer)


def good(*, id: int, customer: int, price: Decimal, placed: datetime) -> Order:
    return Order.objects.create(id=id, customer_id=customer, price=price, placed=placed)


def refused(function: Callable[..., Any], many: str = "orders_in") -> str:
    """Return the code that a batch of a mutation is refused with; "" if it is not."""
    single: Endpoint[Any, Any] = mutation(many=many)(function)
    endpoint = ManyEndpoint(single)
    try:
        endpoint.resolve()
        check_many(
            endpoint, lambda one, names: write_plan(one, names, key=shard_key_parameter(one))
        )
    except DefinitionError as refusal:
        return refusal.code
    return ""


@pytest.mark.parametrize(
    ("function", "code"),
    [
        (order_of_python, "many-not-one-create"),
        (changed, "many-not-one-create"),
        (without_key, "many-primary-key"),
        (with_list, "many-list-parameter"),
        (good, ""),
    ],
)
def test_only_a_single_traced_create_has_a_batch(function: Callable[..., Any], code: str) -> None:
    """What could not be one statement for all items is refused, with a code of its own."""
    assert refused(function) == code


@pytest.mark.parametrize("name", ["admin", "two words", "_x", "9"])
def test_a_name_must_be_one(name: str) -> None:
    """It is a path, and none of the framework's."""
    assert refused(good, name) == "many-name"


def reader() -> tuple[ManyReader, QuickMany]:
    """Return both ways to read a batch of users."""
    endpoint = current_catalog().endpoints["insert_users"]
    assert isinstance(endpoint, ManyEndpoint)
    return ManyReader(endpoint), QuickMany(endpoint)


def read(body: bytes, query: bytes = b"") -> dict[str, Any]:
    """Return the columns that the long way reads."""
    kind = b"application/json"
    return reader()[0].read(query=query, body=body, content_type=kind, has_body=True).values


def breaches(body: bytes, query: bytes = b"") -> list[tuple[str, str | None]]:
    """Return code and pointer of every breach."""
    with pytest.raises(InvalidRequest) as refusal:
        read(body, query)
    return [(error.code, error.pointer) for error in refusal.value.errors]


def items(*members: Any) -> bytes:
    """Return a body with these items."""
    return json.dumps({"items": members}).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (items(), [("out-of-range", "/items")]),
        (items(*[ONE] * 1_001), [("too-long", "/items")]),
        (b"{}", [("missing", None)]),
        (b'{"items":{}}', [("wrong-type", "/items")]),
        (b'{"items":[],"items":[]}', [("duplicate", "/items")]),
        (b"[]", [("malformed-body", "")]),
        (items(ONE, 7), [("wrong-type", "/items/1")]),
        (items(ONE, {**ONE, "id": True}), [("wrong-type", "/items/1/id")]),
        (items({**ONE, "fax": "1"}), [("unknown-parameter", "/items/0/fax")]),
        (items({**ONE, "city": None}, ONE), [("wrong-type", "/items/0/city")]),
        (b'{"items":[{"id":1,"id":2}]}', [("duplicate", "/items/0/id")]),
    ],
)
def test_a_breach_points_at_its_place(body: bytes, expected: list[tuple[str, str | None]]) -> None:
    """The first one told; the short way leaves each to the long one."""
    assert breaches(body)[: len(expected)] == expected
    assert reader()[1].read_body(body) is None


def test_what_is_beside_the_items_is_refused() -> None:
    """Another member, or a parameter in the URL."""
    body = json.dumps({"items": [ONE], "dry": True}).encode()

    assert breaches(body) == [("unknown-parameter", "/dry")]
    assert breaches(items(ONE), b"id=1") == [("unknown-parameter", None)]


def test_no_more_than_a_hundred_breaches_are_told() -> None:
    """Reading ends there, and the detail says so."""
    with pytest.raises(InvalidRequest) as refusal:
        read(items(*[{**ONE, "id": "x"}] * 500))

    assert len(refusal.value.errors) == 100
    assert "the first 100" in refusal.value.detail


LEAVES: st.SearchStrategy[Any] = st.sampled_from(
    ["7", 7, -1, 2**53, 2**53 + 1, "x", "", None, True, 1.5, [], [1], {}, "\ud800", "\x00", "é"]
)
MEMBERS = st.dictionaries(st.sampled_from([*ONE, "fax"]), LEAVES, max_size=7)
BATCHES = st.lists(
    st.one_of(st.just(ONE), MEMBERS.map(lambda own: {**ONE, **own}), MEMBERS, LEAVES), max_size=4
)


@given(members=BATCHES)
def test_both_ways_read_the_same(members: list[Any]) -> None:
    """Where the short way gives columns, the long way gives the same ones."""
    quick = reader()[1].read_body(items(*members))

    assert quick is None or quick.values == read(items(*members))
    if members and all(member == ONE for member in members):
        assert quick is not None
