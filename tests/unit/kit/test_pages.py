"""Pages that would lose rows, or change their values from page to page, are refused."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import Exists, F, OuterRef, Window
from django.db.models.functions import RowNumber

from modeldefs.definitions.flights import Plane
from modeldefs.kit.classify import check_page, route_of
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.statements import order_keys
from modeldefs.kit.tracing import Param
from tests.definitions_shop.shop import Customer, Order
from tests.unit.kit.planning import TABLES

KEYS = Order.objects.order_by("-id").values("customer_id")
RANK = Window(RowNumber(), order_by="id")


@pytest.mark.parametrize(
    ("_case", "rows", "code"),
    [
        ("joined many", Plane.objects.annotate(far=F("flights__distance")), "doubling-join"),
        ("filtered many", Plane.objects.filter(flights__distance__gt=5), "doubling-join"),
        ("window", Customer.objects.annotate(rank=RANK), "window-in-page"),
    ],
)
def test_a_page_that_cannot_be_cut_is_refused(_case: str, rows: Any, code: str) -> None:
    """A row that stands several times on a page, or a rank that each cursor restarts, is refused
    when it is loaded."""
    with pytest.raises(DefinitionError) as refused:
        check_page(rows.query)

    assert code == refused.value.code


@pytest.mark.parametrize(
    ("_case", "rows"),
    [
        ("to one", Order.objects.filter(customer__name="a")),
        ("exists", Customer.objects.filter(Exists(Order.objects.filter(customer=OuterRef("id"))))),
    ],
)
def test_a_page_that_can_be_cut_is_served(_case: str, rows: Any) -> None:
    """Joins to one row and conditions on many do not double rows."""
    check_page(rows.query)


@pytest.mark.parametrize(
    ("_case", "keys"),
    [
        ("first ten", KEYS[:10]),
        ("distinct", KEYS.distinct()),
        ("ranked", Order.objects.annotate(rank=RANK).filter(rank__lte=3).values("customer_id")),
    ],
)
def test_a_list_of_keys_that_each_shard_would_cut_for_itself_is_refused(
    _case: str, keys: Any
) -> None:
    """Ten keys of each shard are not the ten keys of all."""
    rows = Customer.objects.filter(id__in=keys)

    with pytest.raises(DefinitionError) as refused:
        route_of(rows.query, TABLES)

    assert "not-colocated" == refused.value.code


def test_the_order_is_total_over_all_shards() -> None:
    """Equal primary keys on two shards are told apart by the shard key."""
    names = [key.name for key in order_keys(Order.objects.all(), ("-id",))]
    own = [key.name for key in order_keys(Customer.objects.filter(id=Param("id", "bigint")), ())]

    assert ["id", "customer_id"] == names
    assert ["id"] == own
