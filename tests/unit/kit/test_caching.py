"""What an author declares about using answers again, and which reads a tag may stand for."""

# mypy: disable-error-code="return-value,no-any-return"

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from django.db.models import Exists, F, Func, OuterRef, TextField, Value
from django.db.models.functions import Coalesce, Concat, Lower, Now, TruncMonth, Upper

from modeldefs import Cache, Groups, Page, aggregate, count, highest, query
from modeldefs.kit.asks import Served
from tests.definitions_shop.shop import Customer, Order
from tests.unit.kit.planning import code_of, groups_plan, page_plan, plan_of, resolved


class Odd(Func):
    """A function of an author's own."""

    function = "odd"
    output_field = TextField()


def plain(*, country: str | None = None, ids: list[int] | None = None) -> Page[Customer]:
    """Columns and parameters."""
    return Customer.objects.given(country_id=country, id__in=ids)


def computed() -> Page[Customer]:
    """Functions that only know their arguments."""
    orders = Order.objects.filter(customer=OuterRef("id"))
    return Customer.objects.filter(Exists(orders)).annotate(
        shown=Concat(Lower("name"), Coalesce("nick", Value("-", TextField()))),
        month=TruncMonth("joined"),
    )


def until(*, moment: datetime) -> Page[Customer]:
    """The clock of the caller."""
    return Customer.objects.filter(joined__lt=moment)


def lately() -> Page[Customer]:
    """The clock of the database."""
    return Customer.objects.filter(joined__lt=Now())


def age() -> Page[Customer]:
    """The clock in a column."""
    return Customer.objects.annotate(since=Now() - F("joined")).values("id", "since")


def ordered_lately() -> Page[Customer]:
    """The clock in a subquery."""
    return Customer.objects.filter(
        Exists(Order.objects.filter(customer=OuterRef("id"), placed__lt=Now()))
    )


def own() -> Page[Customer]:
    """A function of the author's own."""
    return Customer.objects.annotate(x=Odd("name"))


def named() -> Page[Customer]:
    """A function that is named in the read."""
    return Customer.objects.annotate(x=Func("name", function="odd", output_field=TextField()))


def renamed() -> Page[Customer]:
    """One of Django's, made another."""
    return Customer.objects.annotate(x=Upper("name", function="odd"))


def by_country() -> Groups[str, int]:
    """Groups."""
    return Customer.objects.values("country").annotate(n=count(), most=highest("age"))


def latest_by_country() -> Groups[str, int]:
    """Groups of some."""
    return Customer.objects.filter(joined__lt=Now()).values("country").annotate(n=count())


@aggregate(on=Customer)
def number() -> int:
    """A total."""
    return Customer.objects.totals(n=count())


@aggregate(on=Customer)
def number_by_now() -> int:
    """A total with a clock of its own."""
    from django.db.models import Q

    return Customer.objects.totals(n=count(filter=Q(joined__lt=Now())))


@pytest.mark.parametrize("body", [plain, computed])
def test_reads_of_rows_and_parameters_are_steady(body: Any) -> None:
    """Columns, constants, parameters and Django's own functions of them change with rows only."""
    assert page_plan(body).is_steady


@pytest.mark.parametrize("body", [lately, age, ordered_lately, own, named, renamed])
def test_reads_of_clocks_and_unknown_functions_are_not(body: Any) -> None:
    """Wherever in the query the clock stands; and what Django did not write is not trusted."""
    assert not page_plan(body).is_steady


def test_a_moment_that_the_caller_names_is_steady() -> None:
    """It is a parameter as any other."""
    assert page_plan(until, "moment").is_steady


def test_aggregates_are_looked_into() -> None:
    """Groups and totals, their conditions too."""
    assert groups_plan(by_country).is_steady
    assert plan_of(number).is_steady
    assert not groups_plan(latest_by_country).is_steady
    assert not plan_of(number_by_now).is_steady


BAD: list[Any] = [
    Cache(max_age_s=-1),
    Cache(stale_if_error_s=-1),
    Cache(max_age_s=86_000, stale_if_error_s=401),
    Cache(max_age_s=1.5),  # type: ignore[arg-type]
    Cache(max_age_s=True),
    30,
]


@pytest.mark.parametrize("cache", BAD)
def test_times_that_are_none_are_refused(cache: Any) -> None:
    """At load, with a code."""
    assert "bad-cache" == code_of(lambda: resolved(query(cache=cache)(plain)))
    assert "bad-cache" == code_of(
        lambda: resolved(aggregate(on=Customer, cache=cache)(by_country))
    )


def test_a_tag_alone_is_refused_where_there_can_be_none() -> None:
    """A read of the clock may be kept for a time that its author says, but has no tag."""
    assert "fleeting-answer" == code_of(lambda: plan_of(query(cache=Cache())(lately)))
    assert "" == code_of(lambda: plan_of(query(cache=Cache(max_age_s=5))(lately)))
    assert "" == code_of(lambda: plan_of(query(cache=Cache())(plain)))


@pytest.mark.parametrize(
    ("cache", "told"),
    [
        (None, b"private, no-cache"),
        (Cache(), b"private, no-cache"),
        (Cache(max_age_s=30), b"private, max-age=30"),
        (Cache(max_age_s=30, stale_if_error_s=60), b"private, max-age=30, stale-if-error=60"),
        (Cache(stale_if_error_s=60), b"private, max-age=0, stale-if-error=60"),
    ],
)
def test_cache_control_is_what_was_declared(cache: Cache | None, told: bytes) -> None:
    """Of a read that nobody declared anything about: ask each time."""
    endpoint = query(cache=cache)(plain)
    plan_of(endpoint)

    assert b"cache-control: " + told + b"\r\n" in Served(endpoint).head
