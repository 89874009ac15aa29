"""A declaration is read once, from the signature; what it cannot mean is refused."""

# mypy: disable-error-code="empty-body"
# The functions here are declarations: none is ever called.

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, Union
from uuid import UUID

import pytest

from modeldefs import Groups, Page, aggregate, mutation, query
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.parameters import INT32, KINDS
from tests.definitions_shop.shop import Customer, Order, Parcel
from tests.unit.kit.planning import code_of, resolved

ONE_TEXT: Any = "GET"  # what is written by mistake for ("GET",)
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - a naive moment is what is refused


def positional(id: int) -> Page[Customer]: ...
def limited(*, limit: int) -> Page[Customer]: ...
def behind(*, after: str) -> Page[Customer]: ...
def framework(*, sp_x: int) -> Page[Customer]: ...
def untyped(*, id) -> Page[Customer]: ...  # type: ignore[no-untyped-def]
def of_bytes(*, id: bytes) -> Page[Customer]: ...
def of_two(*, id: int | str) -> Page[Customer]: ...
def of_dict(*, id: dict[str, int]) -> Page[Customer]: ...
def of_numbers(*, id: Literal[1, 2]) -> Page[Customer]: ...
def of_holes(*, id: list[int | None]) -> Page[Customer]: ...
def admin(*, id: int) -> Page[Customer]: ...
def _hidden(*, id: int) -> Page[Customer]: ...
def of_list(*, id: int) -> list[Customer]: ...
def of_nothing(*, id: int): ...  # type: ignore[no-untyped-def]
def of_three(*, id: int) -> Customer | Order | None: ...
def misnamed(*, id: int) -> Page[Unknown]: ...  # type: ignore[name-defined]  # noqa: F821
def groups(*, id: int) -> Groups[str, int]: ...
def page(*, id: int) -> Page[Customer]: ...
def row(*, id: int) -> Customer: ...
def number(*, id: int) -> int: ...
def bad_default(*, age: int = 2**31) -> Page[Customer]: ...
def flag_default(*, age: int = True) -> Page[Customer]: ...
def list_default(*, ids: list[int] = [1]) -> Page[Customer]: ...  # noqa: B006
def naive_default(*, joined: datetime = NAIVE) -> Page[Customer]: ...
def odd_default(*, kind: Literal["a", "b"] = "c") -> Page[Customer]: ...  # type: ignore[assignment]
def thirteen(
    *,
    a: int | None = None,
    b: int | None = None,
    c: int | None = None,
    d: int | None = None,
    e: int | None = None,
    f: int | None = None,
    g: int | None = None,
    h: int | None = None,
    i: int | None = None,
    j: int | None = None,
    k: int | None = None,
    m: int | None = None,
    n: int | None = None,
) -> Page[Customer]: ...


REFUSED: list[tuple[str, Callable[[], Endpoint[Any, Any]]]] = [
    ("positional-parameter", lambda: query(positional)),
    ("reserved-name", lambda: query(limited)),
    ("reserved-name", lambda: query(behind)),
    ("reserved-name", lambda: query(framework)),
    ("reserved-name", lambda: query(admin)),
    ("reserved-name", lambda: query(_hidden)),
    ("untyped-parameter", lambda: query(untyped)),
    ("unsupported-parameter", lambda: query(of_bytes)),
    ("unsupported-parameter", lambda: query(of_two)),
    ("unsupported-parameter", lambda: query(of_dict)),
    ("unsupported-parameter", lambda: query(of_numbers)),
    ("unsupported-parameter", lambda: query(of_holes)),
    ("unsupported-result", lambda: query(of_list)),
    ("unsupported-result", lambda: query(of_nothing)),
    ("unsupported-result", lambda: query(of_three)),
    ("unknown-annotation", lambda: query(misnamed)),
    ("too-many-optional-parameters", lambda: query(thirteen)),
    ("unsupported-default", lambda: query(bad_default)),
    ("unsupported-default", lambda: query(flag_default)),
    ("unsupported-default", lambda: query(list_default)),
    ("unsupported-default", lambda: query(naive_default)),
    ("unsupported-default", lambda: query(odd_default)),
    ("result-of-another-kind", lambda: query(groups)),
    ("result-of-another-kind", lambda: query(number)),
    ("result-of-another-kind", lambda: aggregate(page)),
    ("result-of-another-kind", lambda: aggregate(row)),
    ("result-of-another-kind", lambda: mutation(page)),
    ("result-of-another-kind", lambda: mutation(groups)),
    ("no-model", lambda: mutation(number)),
    ("unknown-method", lambda: mutation(on=Customer, methods=("GET", "FETCH"))(number)),
    ("unknown-method", lambda: mutation(on=Customer, methods=ONE_TEXT)(number)),
    ("bad-limit", lambda: query(limit=5_000)(page)),
    ("bad-limit", lambda: query(limit=0)(page)),
    ("bad-limit", lambda: aggregate(top=0)(groups)),
]


@pytest.mark.parametrize("code, declare", REFUSED)
def test_refused_declarations(code: str, declare: Callable[[], Endpoint[Any, Any]]) -> None:
    """A declaration that cannot be served is refused with its code, and a place."""
    found = code_of(lambda: resolved(declare()))

    assert code == found


def everything(
    *,
    number: int,
    text: str,
    flag: bool,
    ratio: float,
    money: Decimal,
    day: date,
    at: datetime,
    key: UUID,
    span: timedelta = timedelta(hours=1),
    kind: Literal["a", "b"] = "b",
    since: datetime = datetime(2026, 1, 1, tzinfo=UTC),
    share: float = 1,
    many: list[UUID] | None = None,
    old: Union[int, None] = None,  # noqa: UP007 - as older code writes it
) -> Page[Parcel]: ...


def test_every_type_of_parameter() -> None:
    """The signature alone says what each parameter is, takes and falls back to."""
    specs = resolved(query(everything)).by_name

    assert [int, str, bool, float, Decimal, date, datetime, UUID] == [
        next(kind for kind, value in KINDS.items() if value is specs[name].kind)
        for name in ("number", "text", "flag", "ratio", "money", "day", "at", "key")
    ]
    assert ["PT1H", "b", "2026-01-01T00:00:00+00:00", "1.0", None] == [
        specs[name].default for name in ("span", "kind", "since", "share", "many")
    ]
    assert (True, "uuid[]", False) == (
        specs["many"].is_list,
        specs["many"].pg_type,
        specs["many"].required,
    )
    assert (("a", "b"), False, True) == (
        specs["kind"].choices,
        specs["old"].required,
        specs["number"].required,
    )


def columns(
    *, label: str, weight: int, pieces: int, worth: int, id: int, elsewhere: int
) -> Page[Parcel]: ...


@pytest.mark.parametrize(
    "name, low, high, length",
    [
        ("label", -(2**63), 2**63 - 1, 10),
        ("weight", 0, 2**15 - 1, 1_000_000),
        ("pieces", -(2**15), 2**15 - 1, 1_000_000),
        ("worth", 0, 2**31 - 1, 1_000_000),
        ("elsewhere", -(2**63), 2**63 - 1, 1_000_000),
    ],
)
def test_bounds_are_those_of_the_column(name: str, low: int, high: int, length: int) -> None:
    """A parameter named like a column takes what the column takes."""
    spec = resolved(query(columns)).by_name[name]

    assert (low, high, length) == (spec.low, spec.high, spec.length_max)


def test_small_integers_are_json_numbers() -> None:
    """An integer column of four bytes is a number in JSON, others may be text too."""
    specs = resolved(query(columns)).by_name

    assert INT32 is specs["pieces"].kind
    assert KINDS[int] is specs["elsewhere"].kind


def test_shapes() -> None:
    """What is returned says what kind of answer there is."""
    single = resolved(query(row))

    assert ("single", False, Customer) == (single.shape, single.optional_result, single.model)
    assert "page" == resolved(query(page)).shape
    assert ("totals", True) == (
        resolved(aggregate(number)).shape,
        resolved(aggregate(number)).is_scalar,
    )
    assert "groups" == resolved(aggregate(groups)).shape
    assert "row" == resolved(mutation(row)).shape
    assert "value" == resolved(mutation(on=Customer)(number)).shape


def test_methods() -> None:
    """A read answers the safe methods and POST; a write answers POST unless it opts in."""
    assert ("GET", "HEAD", "QUERY", "POST") == query(page).methods
    assert ("POST",) == mutation(row).methods
    assert ("GET", "POST") == mutation(methods=("GET", "POST"))(row).methods


def test_endpoint_stays_callable() -> None:
    """A declared endpoint is still the author's function."""

    @query
    def echo(*, id: int) -> Page[Customer]:
        return id  # type: ignore[return-value]

    assert 5 == echo(id=5)  # type: ignore[comparison-overlap]


def test_order_may_be_a_list_in_one_text() -> None:
    """An order is read with its directions, spaces or not."""
    assert ("-a", "b") == query(order="-a, b")(page).options.order
    assert ("-a", "b") == query(order=("-a", "b"))(page).options.order
