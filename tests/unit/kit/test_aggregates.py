"""An aggregate is served where its parts add up, and refused where they do not."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest
from django.db import models
from django.db.models import Avg, Count, F, Max, Q, StdDev, Sum, Value
from django.db.models.functions import Cast, Coalesce, Lower

from modeldefs import Groups, count, highest, lowest, mean, total
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.tracing import Param
from tests.definitions_shop.shop import Country, Customer, Order, Parcel
from tests.unit.kit.planning import code_of, groups_plan, plan_of

Any_: TypeAlias = Any


def grouped(rows: Any, *, order: str = "", by: int | None = None) -> ReadPlan:
    """Return the plan of an aggregate over some rows."""

    def read(*, id: int) -> Groups[str, int]:
        return rows  # type: ignore[no-any-return]

    return groups_plan(read, "id", order=order)


def totals_of(model: Any, **aggregates: Any) -> ReadPlan:
    """Return the plan of totals over a model."""
    from modeldefs import aggregate

    def read(*, id: int) -> dict[str, int]:
        return model.objects.all().totals(**aggregates)  # type: ignore[no-any-return]

    return plan_of(aggregate(read), "id")


NAMES = Customer.objects.values("name")
PARCELS = Parcel.objects.values("label")
MINE = Customer.objects.filter(id=Param("id", "bigint")).values("name")


@pytest.mark.parametrize(
    "measure, form, rule, scale, width",
    [
        (count(), "count", "sum", 0, 1),
        (count("nick"), "count", "sum", 0, 1),
        (count("id", distinct=True), "count", "sum", 0, 1),
        (count(filter=Q(active=True)), "count", "sum", 0, 1),
        (total("age"), "count", "sum", 0, 1),
        (total("points"), "bigint-sum", "sum", 0, 1),
        (total("balance"), "decimal", "sum", 0, 1),
        (total("score"), "float", "sum", 0, 1),
        (total(F("age") * 2), "count", "sum", 0, 1),
        (lowest("joined"), "datetime", "lowest", 0, 1),
        (highest("name"), "text", "highest", 0, 1),
        (highest(Lower("name")), "text", "highest", 0, 1),
        (highest("points"), "bigint", "highest", 0, 1),
        (mean("age"), "float", "mean", 0, 2),
        (mean("points"), "float", "mean", 0, 2),
        (mean("score"), "float", "mean", -1, 2),
        (mean("balance"), "decimal", "mean", 8, 2),
        (mean("age", filter=Q(active=True)), "float", "mean", 0, 2),
    ],
)
def test_merge_rules(measure: Any, form: str, rule: str, scale: int, width: int) -> None:
    """Each aggregate has one rule by which its parts become the whole."""
    statement = grouped(NAMES.annotate(n=measure)).groups

    assert statement is not None
    (found,) = statement.measures
    assert (form, rule, scale, width) == (found.form.name, found.rule, found.scale, found.width)


REFUSED: list[tuple[str, str, Any]] = [
    ("distinct values", "does-not-add-up", NAMES.annotate(n=count("age", distinct=True))),
    ("distinct sum", "does-not-add-up", NAMES.annotate(n=Sum("age", distinct=True))),
    ("distinct mean", "does-not-add-up", NAMES.annotate(n=Avg("age", distinct=True))),
    ("deviation", "does-not-add-up", NAMES.annotate(n=StdDev("age"))),
    ("arithmetic", "does-not-add-up", NAMES.annotate(n=Sum("age") / Count("id"))),
    ("coalesced", "does-not-add-up", NAMES.annotate(n=Coalesce(Sum("age"), 0))),
    ("mean of times", "does-not-add-up", PARCELS.annotate(n=mean("takes"))),
    ("sum of durations", "does-not-add-up", PARCELS.annotate(n=total("takes"))),
    ("longest duration", "does-not-add-up", PARCELS.annotate(n=highest("takes"))),
    ("highest bytes", "does-not-add-up", PARCELS.annotate(n=highest("seal"))),
    ("foreign order", "foreign-collation",
     NAMES.annotate(n=highest(Cast("id", models.TextField())))),
    ("having", "condition-on-total", NAMES.annotate(n=count()).filter(n__gt=5)),
    ("no group", "no-groups", Customer.objects.all()),
    ("no aggregate", "no-groups", NAMES),
    ("groups of rows", "no-groups", Customer.objects.annotate(n=count())),
    ("own order", "order-in-query", NAMES.annotate(n=count()).order_by("n")),
    ("not colocated", "not-colocated",
     Parcel.objects.values("order__price").annotate(n=count())),
]  # fmt: skip


@pytest.mark.parametrize("case, code, rows", REFUSED, ids=[case for case, _, _ in REFUSED])
def test_refused_aggregates(case: str, code: str, rows: Any) -> None:
    """What shards cannot add up is refused at load, never guessed."""
    found = code_of(lambda: grouped(rows))

    assert code == found, case


@pytest.mark.parametrize(
    "measure",
    [count("age", distinct=True), StdDev("age"), Sum("age") / Count("id"), Max(Lower("nick"))],
)
def test_one_shard_answers_anything(measure: Any) -> None:
    """Where the shard key is bound, one shard has the whole answer and nothing is merged."""
    statement = grouped(MINE.annotate(n=measure)).groups

    assert statement is not None
    assert statement.measures[0].rule in ("only", "highest")


def test_one_shard_may_filter_by_totals() -> None:
    """A condition on a group's total is right where one shard holds the group."""
    statement = grouped(MINE.annotate(n=count()).filter(n__gt=5)).groups

    assert statement is not None
    assert "HAVING COUNT(*) > 5" in statement.sql


def test_statement_of_groups() -> None:
    """Groups come as keys, a mean as its sum and count."""
    statement = grouped(NAMES.annotate(n=count(), m=mean("age"))).groups

    assert statement is not None
    assert statement.sql.startswith(
        'SELECT sp_groups."name", (sp_groups."n")::bigint, (sp_groups."sp_s_m")::text, '
        '(sp_groups."sp_n_m")::bigint FROM (SELECT '
    )
    assert ["name", "n", "m"] == [column.name for column in statement.columns]


def test_totals_have_no_groups() -> None:
    """Totals are one row over everything."""
    statement = totals_of(Order, orders=count(), spent=total("price")).groups

    assert statement is not None
    assert () == statement.groups
    assert "GROUP BY" not in statement.sql
    assert ["orders", "spent"] == [measure.name for measure in statement.measures]


def test_totals_of_a_reference_model() -> None:
    """Every shard holds all rows of a reference model, so any aggregate is right."""
    plan = totals_of(Country, names=count("name", distinct=True))

    assert "reference" == plan.route.reach
    assert plan.groups is not None
    assert "only" == plan.groups.measures[0].rule


def test_orders_of_groups() -> None:
    """Groups are ordered by what they answer."""
    rows = NAMES.annotate(n=count())

    assert "" == code_of(lambda: grouped(rows, order="-n,name"))
    assert "unknown-order" == code_of(lambda: grouped(rows, order="age"))


def test_results_match_their_annotation() -> None:
    """One value is not two totals, and totals are not groups."""

    def one(*, id: int) -> int:
        return Customer.objects.totals(a=count(), b=total("age"))

    def groups(*, id: int) -> Groups[str, int]:
        return Customer.objects.totals(a=count())

    def totals(*, id: int) -> int:
        return NAMES.annotate(n=count())  # type: ignore[no-any-return]

    def none(*, id: int) -> dict[str, int]:
        return Customer.objects.totals()

    assert "result-of-another-kind" == code_of(lambda: groups_plan(one, "id"))
    assert "result-of-another-kind" == code_of(lambda: groups_plan(groups, "id"))
    assert "result-of-another-kind" == code_of(lambda: groups_plan(totals, "id"))
    assert "no-groups" == code_of(lambda: groups_plan(none, "id"))


def test_grouping_by_an_annotation() -> None:
    """A computed group is a group, symbols in it included."""
    rows = Customer.objects.annotate(old=F("age") + Param("id", "bigint")).values("old")
    statement = grouped(rows.annotate(n=count(), x=lowest(Value(1)))).groups

    assert statement is not None
    assert ("id",) == statement.slots
    assert ["old", "n", "x"] == [column.name for column in statement.columns]
