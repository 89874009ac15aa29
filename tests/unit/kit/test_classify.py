"""Where the rows of a read are, and which reads no shard can answer alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias
from uuid import UUID

import pytest
from django.db import models
from django.db.models import Exists, F, OuterRef, Q, Subquery, Value, Window
from django.db.models.expressions import RawSQL
from django.db.models.functions import Lower, Random, RowNumber

from modeldefs import Page, count
from modeldefs.definitions.flights import Airline, Flight, Plane, Weather
from modeldefs.kit.classify import Route, route_of
from modeldefs.kit.tracing import Param
from tests.definitions_shop.shop import Country, Customer, Order, Parcel
from tests.unit.kit.planning import TABLES, code_of, page_plan

Rows: TypeAlias = Any
MODELS = {m._meta.db_table: m for m in (Airline, Flight, Plane, Weather)} | TABLES
ID, IDS, TEXT = Param("id", "bigint"), Param("ids", "bigint[]", is_list=True), Param("t", "text")
KEY = Param("key", "uuid")
TARGETED, SCATTER = Route("targeted", parameter="id"), Route("scatter")

ROUTES: list[tuple[str, Rows, Route]] = [
    ("all", Customer.objects.all(), SCATTER),
    ("key", Customer.objects.filter(id=ID), TARGETED),
    ("pk", Customer.objects.filter(pk=ID), TARGETED),
    ("uuid", Parcel.objects.filter(id=KEY), Route("targeted", parameter="key")),
    ("relation", Order.objects.filter(customer=ID), TARGETED),
    ("attname", Order.objects.filter(customer_id=ID), TARGETED),
    ("through", Order.objects.filter(customer__id=ID), TARGETED),
    ("own id", Order.objects.filter(id=ID), SCATTER),
    ("constant", Customer.objects.filter(id=5), Route("targeted", constants=(5,))),
    ("text constant", Customer.objects.filter(id="5"), Route("targeted", constants=(5,))),
    ("value", Customer.objects.filter(id=Value(5)), Route("targeted", constants=(5,))),
    ("odd value", Customer.objects.filter(id=Value("05")), SCATTER),
    (
        "uuid constant",
        Parcel.objects.filter(id="00000000-0000-0000-0000-000000000007"),
        Route("targeted", constants=(UUID(int=7),)),
    ),
    ("list", Customer.objects.filter(id__in=IDS), Route("list", parameter="ids")),
    ("relation list", Order.objects.filter(customer__in=IDS), Route("list", parameter="ids")),
    ("constants", Customer.objects.filter(id__in=[1, "2", None]), Route("list", constants=(1, 2))),
    ("no constants", Customer.objects.filter(id__in=[]), Route("list")),
    ("nothing", Customer.objects.none(), Route("list")),
    ("list and key", Customer.objects.filter(id__in=IDS, id=ID), TARGETED),
    ("nested and", Customer.objects.filter(Q(Q(id=ID) & Q(active=True)) & Q(age=1)), TARGETED),
    ("or", Customer.objects.filter(Q(id=ID) | Q(active=True)), SCATTER),
    ("or of keys", Customer.objects.filter(Q(id=ID) | Q(id=5)), SCATTER),
    ("xor", Customer.objects.filter(Q(id=ID) ^ Q(active=True)), SCATTER),
    ("not", Customer.objects.exclude(id=ID), SCATTER),
    ("not not", Customer.objects.filter(~~Q(id=ID)), TARGETED),
    ("range", Customer.objects.filter(id__gte=ID, id__lte=ID), SCATTER),
    ("function", Customer.objects.annotate(k=Lower("name")).filter(k=TEXT), SCATTER),
    ("alias", Customer.objects.annotate(k=F("id")).filter(k=ID), TARGETED),
    ("computed", Customer.objects.filter(id=ID + 1), SCATTER),
    ("other column", Customer.objects.filter(id=F("points")), SCATTER),
    ("ratio", Customer.objects.filter(id=Param("f", "float8")), SCATTER),
    ("decimal", Customer.objects.filter(id=Param("d", "numeric")), SCATTER),
    ("joined", Order.objects.filter(customer__name=TEXT), SCATTER),
    ("joined reference", Order.objects.filter(customer__country__name=TEXT), SCATTER),
    ("reference", Country.objects.filter(code=TEXT), Route("reference")),
    ("flights", Flight.objects.filter(plane__year=ID), SCATTER),
    ("flights back", Plane.objects.filter(flights__dest=TEXT), SCATTER),
    ("flights not", Plane.objects.exclude(flights__dest=TEXT), SCATTER),
    ("plane", Flight.objects.filter(plane__tailnum=TEXT), Route("targeted", parameter="t")),
    ("exists", Customer.objects.filter(Exists(Order.objects.filter(customer=OuterRef("id")))),
     SCATTER),
    ("exists reversed",
     Order.objects.filter(Exists(Customer.objects.filter(id=OuterRef("customer_id")))), SCATTER),
    ("exists reference", Customer.objects.filter(Exists(Country.objects.filter(name=TEXT))),
     SCATTER),
    ("keys", Customer.objects.filter(id__in=Order.objects.filter(price=5).values("customer")),
     SCATTER),
    ("same symbol", Customer.objects.filter(
        Exists(Order.objects.filter(customer=ID)), id=ID), TARGETED),
    ("two deep", Customer.objects.filter(Exists(Order.objects.filter(
        Exists(Customer.objects.filter(id=OuterRef("customer_id"))), customer=OuterRef("id")))),
     SCATTER),
    ("two deep to the top", Customer.objects.filter(Exists(Order.objects.filter(
        Exists(Customer.objects.filter(id=OuterRef(OuterRef("id")))), customer=OuterRef("id")))),
     SCATTER),
    ("window by key", Order.objects.annotate(
        n=Window(RowNumber(), partition_by=[F("customer_id")])), SCATTER),
    ("window of one", Order.objects.filter(customer=ID).annotate(n=Window(RowNumber())), TARGETED),
]  # fmt: skip


@pytest.mark.parametrize("case, rows, route", ROUTES, ids=[case for case, _, _ in ROUTES])
def test_routes(case: str, rows: Rows, route: Route) -> None:
    """An equality on the shard key targets, a list is split, all else is asked everywhere."""
    found = route_of(rows.query, MODELS)

    assert route == found, case


class Foreign(models.Model):
    """A model that is none of the cluster's."""

    id = models.BigIntegerField(primary_key=True)

    class Meta:
        app_label = "definitions_shop"


REFUSED: list[tuple[str, str, Callable[[], Rows]]] = [
    ("join off the key", "not-colocated",
     lambda: Parcel.objects.filter(order__price=5)),
    ("annotated join", "not-colocated",
     lambda: Parcel.objects.annotate(price=F("order__price"))),
    ("untied subquery", "not-colocated",
     lambda: Customer.objects.filter(Exists(Order.objects.filter(price=5)))),
    ("tied by another column", "not-colocated",
     lambda: Customer.objects.filter(Exists(Order.objects.filter(id=OuterRef("id"))))),
    ("tied to another column", "not-colocated",
     lambda: Customer.objects.filter(Exists(Order.objects.filter(customer=OuterRef("points"))))),
    ("tied by or", "not-colocated",
     lambda: Customer.objects.filter(
         Exists(Order.objects.filter(Q(customer=OuterRef("id")) | Q(price=5))))),
    ("other keys", "not-colocated",
     lambda: Customer.objects.filter(id__in=Order.objects.values("id"))),
    ("other list", "not-colocated",
     lambda: Customer.objects.filter(points__in=Order.objects.values("customer_id"))),
    ("annotated subquery", "not-colocated",
     lambda: Customer.objects.annotate(x=Subquery(Order.objects.values("price")[:1]))),
    ("deep untied", "not-colocated",
     lambda: Customer.objects.filter(Exists(Order.objects.filter(
         Exists(Customer.objects.filter(age=5)), customer=OuterRef("id"))))),
    ("deep tied off the key", "not-colocated",
     lambda: Customer.objects.filter(Exists(Order.objects.filter(
         Exists(Customer.objects.filter(id=OuterRef(OuterRef("points")))),
         customer=OuterRef("id"))))),
    ("reference joins documents", "reference-joins-documents",
     lambda: Country.objects.filter(
         Exists(Customer.objects.filter(country=OuterRef("code"))))),
    ("window", "window-across-shards",
     lambda: Order.objects.annotate(n=Window(RowNumber()))),
    ("window by another", "window-across-shards",
     lambda: Order.objects.annotate(n=Window(RowNumber(), partition_by=[F("price")]))),
    ("distinct", "distinct", lambda: Customer.objects.distinct()),
    ("distinct on", "distinct", lambda: Customer.objects.distinct("name")),
    ("union", "union", lambda: Customer.objects.union(Customer.objects.all())),
    ("slice", "slice", lambda: Customer.objects.all()[:5]),
    ("lock", "row-lock", lambda: Customer.objects.select_for_update()),
    ("extra", "raw-sql", lambda: Customer.objects.extra(where=["true"])),
    ("select_related", "select-related", lambda: Order.objects.select_related("customer")),
    ("defer", "deferred-fields", lambda: Customer.objects.defer("name")),
    ("only", "deferred-fields", lambda: Customer.objects.only("name")),
    ("raw", "raw-sql", lambda: Customer.objects.annotate(x=RawSQL("1", []))),
    ("raw in a filter", "raw-sql", lambda: Customer.objects.filter(age=RawSQL("1", []))),
    ("raw below", "raw-sql",
     lambda: Customer.objects.filter(
         Exists(Order.objects.filter(customer=OuterRef("id"), price=RawSQL("1", []))))),
    ("extra below", "raw-sql",
     lambda: Customer.objects.filter(
         Exists(Order.objects.filter(customer=OuterRef("id")).extra(where=["true"])))),
    ("union below", "union",
     lambda: Customer.objects.filter(id__in=Order.objects.filter(price=5).values("customer").union(
         Order.objects.values("id")))),
    ("random", "random", lambda: Customer.objects.annotate(x=Random())),
    ("prefetch", "prefetch", lambda: Order.objects.prefetch_related("customer")),
    ("order", "order-in-query", lambda: Customer.objects.order_by("name")),
    ("grouped", "grouped-page", lambda: Customer.objects.values("name").annotate(n=count())),
    ("list as value", "list-as-value", lambda: Customer.objects.filter(points=IDS)),
    ("list compared", "list-as-value", lambda: Customer.objects.filter(points__gt=IDS)),
    ("value as list", "value-as-list", lambda: Customer.objects.filter(points__in=ID)),
    ("foreign", "foreign-model", lambda: Foreign._default_manager.all()),
    ("foreign below", "foreign-model",
     lambda: Customer.objects.filter(
         Exists(Foreign._default_manager.filter(id=OuterRef("id"))))),
    ("another model", "result-of-another-model", lambda: Order.objects.all()),
    ("unknown relation", "trace-failed", lambda: Customer.objects.filter(nothing=1)),
]  # fmt: skip


@pytest.mark.parametrize("case, code, rows", REFUSED, ids=[case for case, _, _ in REFUSED])
def test_refused_reads(case: str, code: str, rows: Callable[[], Rows]) -> None:
    """A read that would lose rows, or that cannot be paged and merged, is refused at load."""
    declared: Any = {"Country": Country, "Order": Order, "Parcel": Parcel}
    model = declared.get(_start(rows), Customer)

    def read(*, id: int) -> Page[Customer]:
        return rows()  # type: ignore[no-any-return]

    read.__annotations__["return"] = _page_of(
        Customer if code == "result-of-another-model" else model
    )
    found = code_of(lambda: page_plan(read, "id"))

    assert code == found, case


def _page_of(model: Any) -> Any:
    return Page.__class_getitem__(model)  # type: ignore[attr-defined]


def _start(rows: Callable[[], Rows]) -> str:
    try:
        return str(rows().model.__name__)
    except Exception:
        return ""
