"""A read is called with symbols: it may build a query from them, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, models
from django.db.models import F, Value
from django.db.models.functions import Concat, Lower

from modeldefs import Page, query
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.tracing import Param, presence_sets, trace
from tests.definitions_shop.shop import Customer, Order
from tests.unit.kit.planning import code_of, page_plan, resolved

COUNTER = itertools.count()


def use(misuse: Callable[[Any], object]) -> Callable[..., Any]:
    """Return a read that does something with its parameter before it answers."""

    def read(*, name: str, ids: list[int] | None = None) -> Page[Customer]:
        misuse(name if ids is None else ids)
        return Customer.objects.all()

    return read


def looped(values: Any) -> None:
    """Iterate over the values."""
    for _ in values:
        pass


MISUSES: list[tuple[str, Callable[[Any], object]]] = [
    ("bool", bool),
    ("not", lambda p: not p),
    ("or", lambda p: p or 1),
    ("eq", lambda p: p == "x"),
    ("ne", lambda p: p != "x"),
    ("lt", lambda p: p < "x"),
    ("ge", lambda p: p >= 1),
    ("among", lambda p: p in ("x", "y")),
    ("contains", lambda p: "x" in p),
    ("len", len),
    ("iter", looped),
    ("list", list),
    ("sorted", sorted),
    ("format", lambda p: f"{p}%"),
    ("str", str),
    ("percent", lambda p: "%s" % p),  # noqa: UP031 - what is refused
    ("int", int),
    ("float", float),
    ("index", lambda p: [1, 2][p]),
    ("getitem", lambda p: p[0]),
    ("slice", lambda p: p[:3]),
]


@pytest.mark.parametrize("_case, misuse", MISUSES)
def test_use_of_the_value_is_refused(_case: str, misuse: Callable[[Any], object]) -> None:
    """Whatever depends on the value is refused at load, with the fix."""
    with pytest.raises(DefinitionError) as refused:
        page_plan(use(misuse), "name")

    assert "branches-on-value" == refused.value.code
    assert "is None" in refused.value.fix
    assert "test_tracing.read" in refused.value.where


def test_use_of_a_list_is_refused() -> None:
    """A list cannot be counted or looped over either."""
    assert "branches-on-value" == code_of(lambda: page_plan(use(len), "name", "ids"))
    assert "branches-on-value" == code_of(lambda: page_plan(use(looped), "name", "ids"))


def test_method_of_the_value_is_refused() -> None:
    """A method of the value's type is not there, and the refusal names it."""
    with pytest.raises(DefinitionError, match="has no attribute 'lower'") as refused:
        page_plan(use(lambda p: p.lower()), "name")

    assert "trace-failed" == refused.value.code


SQL: list[tuple[str, Callable[[Any], object]]] = [
    ("len", lambda p: len(Customer.objects.all())),
    ("first", lambda p: Customer.objects.filter(name=p).first()),
    ("exists", lambda p: Customer.objects.filter(name=p).exists()),
    ("count", lambda p: Customer.objects.count()),
    ("create", lambda p: Customer.objects.create(id=1)),
    ("raw", lambda p: list(Customer.objects.raw("SELECT 1 AS id"))),
    ("cursor", lambda p: connection.cursor().execute("SELECT 1")),
]


@pytest.mark.parametrize("_case, statement", SQL)
def test_sql_while_tracing_is_refused(
    _case: str, statement: Callable[[Any], object], django_db_blocker: Any
) -> None:
    """A trace runs no SQL."""
    with django_db_blocker.unblock():
        found = code_of(lambda: page_plan(use(statement), "name"))

    assert "query-while-tracing" == found


@pytest.mark.parametrize("answer", [None, [1], "x", Customer])
def test_other_results_are_refused(answer: object) -> None:
    """A read returns a QuerySet."""

    def read(*, id: int) -> Page[Customer]:
        return answer  # type: ignore[return-value]

    assert "no-queryset" == code_of(lambda: page_plan(read, "id"))


def test_branches_on_none_work() -> None:
    """Each set of present parameters has its own query."""

    def read(*, name: str | None = None) -> Page[Customer]:
        if name is None:
            return Customer.objects.filter(active=True)
        return Customer.objects.filter(name=name)

    with_name, without = page_plan(read, "name").first, page_plan(read).first

    assert with_name is not None
    assert without is not None
    assert ("name", "sp_limit") == with_name.slots
    assert ("sp_limit",) == without.slots
    assert '"name" = ($1::text)' in with_name.sql


def test_changing_trace_is_seen() -> None:
    """A read that gives another query each time is told from one that does not."""

    def read(*, id: int) -> Page[Customer]:
        return Customer.objects.filter(points=next(COUNTER))

    assert page_plan(read, "id") != page_plan(read, "id")


def test_symbols_go_wherever_expressions_go() -> None:
    """Functions, arithmetic, relations and lists take symbols as they take values."""

    def read(*, name: str, n: int, country: str, ids: list[int]) -> Page[Customer]:
        return Customer.objects.filter(
            name=Lower(name),
            points__gt=F("age") + n,
            country=country,
            id__in=ids,
            nick__istartswith=name,
        ).annotate(  # type: ignore[return-value]
            title=Concat(Value("Dr. "), name, output_field=models.TextField())
        )

    statement = page_plan(read, "name", "n", "country", "ids").first

    assert statement is not None
    assert ("name", "n", "country", "ids", "sp_limit") == tuple(
        sorted(statement.slots, key=["name", "n", "country", "ids", "sp_limit"].index)
    )
    assert " = ANY($" in statement.sql
    assert "::bigint[])" in statement.sql


def test_relation_by_name_takes_a_symbol() -> None:
    """`customer=` and `customer_id=` are the same condition."""

    def by_name(*, customer: int) -> Page[Order]:
        return Order.objects.filter(customer=customer)

    def by_column(*, customer: int) -> Page[Order]:
        return Order.objects.filter(customer_id=customer)

    assert page_plan(by_name, "customer") == page_plan(by_column, "customer")


def test_symbols_are_equal_by_name_and_type() -> None:
    """Equal symbols make equal expressions, so that GROUP BY can recognise them."""
    assert hash(Param("a", "text")) == hash(Param("a", "text"))
    assert Param("a", "text").identity == Param("a", "text").identity


def one_default(*, id: int, a: str | None = None, b: int = 5, c: str | None = None) -> Page[Order]:
    """Return orders."""
    return Order.objects.all()


def test_presence_sets_of_few_parameters() -> None:
    """All sets are traced: required and defaulted parameters are always present."""
    found = presence_sets(resolved(query(one_default)))

    assert [
        {"b", "id"},
        {"a", "b", "id"},
        {"b", "c", "id"},
        {"a", "b", "c", "id"},
    ] == found


def test_presence_sets_of_many_parameters() -> None:
    """Of many, the empty set, the full one and each alone are traced at load."""
    found = presence_sets(resolved(query(one_default)), at_most=3)

    assert [{"b", "id"}, {"a", "b", "id"}, {"b", "c", "id"}, {"a", "b", "c", "id"}] == found


def test_trace_leaves_no_trace() -> None:
    """After a trace, terminal words work as ever."""
    endpoint = resolved(query(one_default))
    trace(endpoint, frozenset({"id", "b"}))

    with pytest.raises(RuntimeError, match="Database access not allowed"):
        Customer.objects.filter(id=1).one()
