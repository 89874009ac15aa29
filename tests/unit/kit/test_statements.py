"""One traced read becomes one statement: symbols numbered, constants literal, columns cast."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import models
from django.db.models import F, Value
from django.db.models.functions import Cast, Coalesce, Collate, ExtractYear, Lower

from modeldefs.definitions.flights import Flight
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.statements import BUCKETS_SLOT, Statement, number_parameters, page_statement
from modeldefs.kit.tracing import Param, Slot, presence_sets
from tests.definitions_shop.shop import Country, Customer, Order, Parcel
from tests.unit.kit.planning import code_of

T = '"definitions_shop_customer"'


def statement(rows: Any, *order: str, after: bool = False) -> Statement:
    """Return the statement of some rows."""
    return page_statement(rows, order, after=after)


def where(rows: Any, *order: str) -> str:
    """Return the condition and order of the page behind a cursor."""
    sql = statement(rows, *order, after=True).sql
    return sql.partition(" WHERE ")[2].replace(f"{T}.", "")


@pytest.mark.parametrize(
    "text, params, sql, slots",
    [
        ("a = %s", [Slot("x")], "a = $1", ("x",)),
        ("%s %s %s", [Slot("x"), Slot("y"), Slot("x")], "$1 $2 $1", ("x", "y")),
        ("a = %s", ["it's"], "a = 'it''s'", ()),
        ("a = %s", ["50%"], "a = '50%'", ()),
        ("a = %s", ["%s $1"], "a = '%s $1'", ()),
        ("a LIKE '%%x%%'", [], "a LIKE '%x%'", ()),
        ("a = %s", ["back\\slash"], "a = E'back\\\\slash'", ()),
        ("a = %s", ["back\\'"], "a = E'back\\\\'''", ()),
        ("a = %s", [5], "a = 5", ()),
        ("a = %s", [True], "a = true", ()),
        ("a = %s", [None], "a = NULL", ()),
        ("a = %s", [Decimal("1.50")], "a = 1.50", ()),
        ("a = %s", [UUID(int=7)], "a = '00000000000000000000000000000007'::uuid", ()),
        (
            "a = %s",
            [datetime(2026, 1, 1, tzinfo=UTC)],
            "a = '2026-01-01 00:00:00+00:00'::timestamptz",
            (),
        ),
    ],
)
def test_numbering(text: str, params: list[Any], sql: str, slots: tuple[str, ...]) -> None:
    """A symbol is one number however often it stands; a constant is an escaped literal."""
    found, found_slots = number_parameters(text, params)

    assert sql == found.replace("=  E", "= E")  # the library puts a blank of its own before E
    assert slots == found_slots


def test_page_from_the_start() -> None:
    """Every column is cast to its wire form, then come the typed keys, in order, to a limit."""
    found = statement(Country.objects.filter(code=Param("code", "text")), "-name")

    assert (
        'SELECT "definitions_shop_country"."code" AS "sp_0", '
        '"definitions_shop_country"."name" AS "sp_1", '
        '"definitions_shop_country"."name" AS "sp_k0", '
        '"definitions_shop_country"."code" AS "sp_k1" '
        'FROM "definitions_shop_country" WHERE "definitions_shop_country"."code" = ($1::text) '
        'ORDER BY "definitions_shop_country"."name" DESC, "definitions_shop_country"."code" DESC '
        "LIMIT $2::bigint"
    ) == found.sql
    assert ("code", "sp_limit") == found.slots
    assert ["code", "name"] == [column.name for column in found.columns]


def test_bucket_is_never_answered() -> None:
    """The framework's own column stays inside."""
    found = statement(Customer.objects.all())

    assert [
        *("id", "name", "nick", "country_id", "balance", "points", "age", "score", "active"),
        "joined",
    ] == [column.name for column in found.columns]
    assert "bucket" not in found.sql


@pytest.mark.parametrize(
    "order, keys",
    [
        ((), [("id", False)]),
        (("name",), [("name", False), ("id", False)]),
        (("-name",), [("name", True), ("id", True)]),
        (("-name", "age"), [("name", True), ("age", False), ("id", False)]),
        (("-id",), [("id", True)]),
        (("id", "name"), [("id", False), ("name", False)]),
    ],
)
def test_order_is_made_total(order: tuple[str, ...], keys: list[tuple[str, bool]]) -> None:
    """The primary key ends every order, in the direction of the others if they agree."""
    found = statement(Customer.objects.all(), *order)

    assert keys == [(key.name, key.descending) for key in found.keys]


def test_keyset_of_one_column() -> None:
    """Behind a position means greater than its key."""
    assert '"id" > ($1::bigint) ORDER BY "id" ASC LIMIT $2::bigint' == where(
        Customer.objects.all()
    )


def test_keyset_of_mixed_directions() -> None:
    """Each direction has its own comparison, and equal keys fall to the next column."""
    found = where(Customer.objects.all(), "-age", "name")

    assert (
        '("age" <= ($1::bigint) AND ("age" < ($1::bigint) OR '
        '("name" >= ($2::text) AND ("name" > ($2::text) OR "id" > ($3::bigint))))) '
        'ORDER BY "age" DESC, "name" ASC, "id" ASC LIMIT $4::bigint'
    ) == found


def test_keyset_joins_the_read_s_own_condition() -> None:
    """The position is one more condition; slots come in the order of the text."""
    rows = Customer.objects.filter(name=Param("name", "text"))
    found = statement(rows, "joined", after=True)

    assert ("name", "sp_after_0", "sp_after_1", "sp_limit") == found.slots
    assert "($2::timestamptz)" in found.sql


@pytest.mark.parametrize(
    "order, code",
    [
        ("nick", "nullable-order"),
        ("nothing", "unknown-order"),
        ("country", "unknown-order"),
        ("country__name", "unknown-order"),
    ],
)
def test_refused_orders(order: str, code: str) -> None:
    """An order that may lose rows between pages is refused."""
    assert code == code_of(lambda: statement(Customer.objects.all(), order))


def test_column_of_an_outer_join_is_nullable() -> None:
    """What is joined only where it exists may be NULL, whatever its own column says."""
    outer = Flight.objects.annotate(maker=F("plane__manufacturer"))
    inner = Order.objects.annotate(buyer=F("customer__name"))

    assert "nullable-order" == code_of(lambda: statement(outer, "maker"))
    assert "" == code_of(lambda: statement(inner, "buyer"))


@pytest.mark.parametrize("order", ["takes", "seal", "papers"])
def test_unsortable_orders(order: str) -> None:
    """A column whose text does not sort like its value orders nothing."""
    assert "unsortable-order" == code_of(lambda: statement(Parcel.objects.all(), order))


@pytest.mark.parametrize("order", ["leaves", "day", "label", "weight", "order_id"])
def test_sortable_orders(order: str) -> None:
    """Times, dates, texts, numbers and relations order a page, and its cursor."""
    found = statement(Parcel.objects.all(), order, after=True)

    assert [order, "id"] == [key.name for key in found.keys]


def test_coalesced_order_is_never_null() -> None:
    """A nullable column orders once it is coalesced."""
    rows = Customer.objects.annotate(shown=Coalesce("nick", "name"))

    assert "shown" == statement(rows, "shown").keys[0].name


@pytest.mark.parametrize(
    "_case, annotation, is_collated",
    [
        ("column", F("name"), False),
        ("function", Coalesce(Lower("name"), Value("x", models.TextField())), False),
        ("no column", Cast("id", models.TextField()), True),
        ("foreign", Collate("name", "de-x-icu"), True),
        ("ours", Collate(Cast("id", models.TextField()), "sp_text"), False),
    ],
)
def test_texts_sort_by_code_point(_case: str, annotation: Any, is_collated: bool) -> None:
    """A text that Postgres would sort by another rule is sorted by ours, as the merge does."""
    never_null = Coalesce(annotation, Value("", models.TextField()))
    sql = statement(Customer.objects.annotate(shown=never_null), "shown", after=True).sql

    assert is_collated is (' COLLATE "sp_text" ASC' in sql)


def test_computed_integers_are_integers() -> None:
    """What Postgres computes as numeric still leaves as a JSON number."""
    sql = statement(Customer.objects.annotate(year=ExtractYear("joined"))).sql

    assert "AT TIME ZONE 'UTC'))::bigint" in sql


def test_values_choose_columns() -> None:
    """values() answers just what it names, through relations too."""
    found = statement(Order.objects.values("price", "customer__name"))

    assert [("price", False), ("customer__name", True)] == [
        (column.name, column.nullable) for column in found.columns
    ]


def test_percent_and_quotes_survive_the_whole_way() -> None:
    """A constant with quotes, percent signs and backslashes stands in the SQL as it was."""
    sql = statement(Country.objects.filter(name="100% 'a\\b'")).sql

    assert "E'100% ''a\\\\b'''" in sql


def test_nothing_is_still_a_statement() -> None:
    """none() and an empty list are reads that find no row."""
    assert "WHERE 0 = 1 ORDER BY" in statement(Country.objects.none()).sql
    assert "WHERE 0 = 1 ORDER BY" in statement(Country.objects.filter(code__in=[])).sql


def test_own_order_is_refused() -> None:
    """The order of an endpoint is declared, not hidden in its body."""
    with pytest.raises(DefinitionError, match="declare it: @query"):
        statement(Country.objects.order_by("name"))


def test_the_page_of_a_lagging_walk_differs_by_its_buckets_alone() -> None:
    """Wherever a walk may lack a shard there is a statement for named buckets: the same rows,
    keys and parameters as of the ordinary page, and the buckets."""
    catalog = current_catalog()
    plans = [
        catalog.plan(endpoint, presence)
        for endpoint in catalog.by_number
        if endpoint.shape == "page"
        for presence in presence_sets(endpoint)
    ]
    walks = [plan for plan in plans if plan.ranged is not None]

    assert {"scatter", "list"} == {plan.route.reach for plan in walks}
    assert not [p for p in plans if p.ranged is None and p.route.reach in ("scatter", "list")]
    for plan in walks:
        for ordinary, behind in ((plan.first, False), (plan.after, True)):
            assert ordinary is not None
            assert plan.ranged is not None
            named = plan.ranged(behind)
            assert (ordinary.columns, ordinary.keys) == (named.columns, named.keys)
            assert {*ordinary.slots, BUCKETS_SLOT} == set(named.slots)
            assert 1 == named.sql.count('."bucket" <@ $')
