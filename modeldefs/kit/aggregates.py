"""Aggregates that add up: how each is split into parts on the shards and put together again.

Every aggregate of a scattered read must be one of a small algebra: count, sum, lowest, highest,
and mean as the pair (sum, count). Whatever does not add up (a mean of means, a distinct count of
values that several shards may hold, a condition on a group's total) is refused at load time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from django.db import models
from django.db.models import Avg, Count, Max, Min, Sum, Value
from django.db.models.expressions import Col, Star
from django.db.models.sql.query import Query

from modeldefs.kit.classify import Route
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.statements import (
    Column,
    compile_query,
    is_in_our_order,
    number_parameters,
)
from modeldefs.kit.wireforms import (
    BIGINT,
    BIGINT_SUM,
    COUNT,
    DATE,
    DATETIME,
    DECIMAL,
    FLOAT,
    INTEGER,
    TEXT,
    TEXT_COLLATION,
    TIME,
    WireForm,
    form_of,
)

MergeRule = Literal["sum", "lowest", "highest", "mean", "only"]

GROUPS_MAX = 100_000
_NUMBERS = (INTEGER, COUNT, BIGINT, BIGINT_SUM, FLOAT, DECIMAL)
# Of these the dispatcher's order of keys is Postgres' own.
_SORTED = (*_NUMBERS, TEXT, DATETIME, DATE, TIME)


def count(field: str = "*", *, distinct: bool = False, filter: Any = None) -> Count:
    """Count rows, or the non-null values of a field."""
    if field == "*" and (distinct or filter is not None):
        field = "pk"  # never null, so it counts the rows; SQL takes no star here
    return Count(field, distinct=distinct, filter=filter)


def total(field: Any, *, filter: Any = None) -> Sum:
    """Add up the values of a field."""
    return Sum(field, filter=filter)


def mean(field: Any, *, filter: Any = None) -> Avg:
    """The arithmetic mean of a field, exact over all shards: their sum by their count."""
    return Avg(field, filter=filter)


def lowest(field: Any, *, filter: Any = None) -> Min:
    """The lowest value of a field."""
    return Min(field, filter=filter)


def highest(field: Any, *, filter: Any = None) -> Max:
    """The highest value of a field."""
    return Max(field, filter=filter)


@dataclass(frozen=True, slots=True)
class Measure:
    """One aggregate of an answer and how its parts are put together."""

    name: str
    form: WireForm
    rule: MergeRule
    scale: int = 0  # decimal places of a mean of decimals; -1: a mean of floats
    nullable: bool = True

    @property
    def width(self) -> int:
        """How many columns of a part it takes."""
        return 2 if self.rule == "mean" else 1


@dataclass(frozen=True, slots=True)
class GroupStatement:
    """A prepared statement of groups: the group columns first, then the measures' parts."""

    sql: str
    slots: tuple[str, ...]
    groups: tuple[Column, ...]
    measures: tuple[Measure, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The members of one answered group."""
        return (*self.groups, *(Column(m.name, m.form, m.nullable) for m in self.measures))


def group_statement(queryset: Any, route: Route) -> GroupStatement:
    """Return the statement of ``values(...).annotate(...)``.

    Raises:
        DefinitionError: It groups by nothing, or has an aggregate that does not add up.
    """
    query: Query = queryset.query
    if query.order_by:
        raise DefinitionError(
            "order-in-query", "the read calls order_by()", fix='declare @aggregate(order="-n")'
        )
    if query.group_by is None:
        raise DefinitionError(
            "no-groups",
            "the read has no groups",
            fix="write values('field').annotate(n=count()), or .totals(n=count())",
        )
    aggregates = {
        name: annotation
        for name, annotation in query.annotation_select.items()
        if annotation.contains_aggregate
    }
    chosen = list(query.selected or ()) or [*query.values_select, *query.annotation_select]
    names = [name for name in chosen if name not in aggregates]
    if not names or not aggregates:
        raise DefinitionError(
            "no-groups",
            "the read has no group or no aggregate",
            fix="write values('field').annotate(n=count())",
        )
    groups = tuple(_group_column(query, name) for name in names)
    return _build(queryset, route, groups, aggregates)


def totals_statement(queryset: Any, aggregates: dict[str, Any], route: Route) -> GroupStatement:
    """Return the statement of ``totals(...)``: one row over everything."""
    if not aggregates:
        raise DefinitionError("no-groups", "totals() names no aggregate", fix="totals(n=count())")
    grouped = with_totals(queryset, aggregates)
    resolved = {name: grouped.query.annotations[name] for name in aggregates}
    return _build(grouped, route, (), resolved)


def with_totals(queryset: Any, aggregates: dict[str, Any]) -> Any:
    """Return the queryset of one row: these aggregates over everything."""
    return queryset.order_by().annotate(sp_all=Value(1)).values("sp_all").annotate(**aggregates)


def _group_column(query: Query, name: str) -> Column:
    if name in query.annotations:
        return Column(name, form_of(query.annotations[name].output_field))
    field: Any = query.names_to_path(name.split("__"), query.get_meta(), fail_on_missing=True)[1]
    return Column(name, form_of(field), bool(field.null) or "__" in name)


def _build(
    queryset: Any, route: Route, groups: tuple[Column, ...], aggregates: dict[str, Any]
) -> GroupStatement:
    if not route.is_single_shard and queryset.query.where.contains_aggregate:
        raise DefinitionError(
            "condition-on-total",
            "filters by an aggregate before the shards' parts are added up",
            fix="bind the shard key by a required parameter, or filter in the client",
        )
    measures: list[Measure] = []
    parts: dict[str, Any] = {}
    for name, aggregate in aggregates.items():
        measure = _measure(name, aggregate, queryset.query, route)
        measures.append(measure)
        if measure.rule == "mean":
            source, condition = aggregate.get_source_expressions()[0], aggregate.filter
            parts[f"sp_s_{name}"] = Sum(source, filter=condition)
            parts[f"sp_n_{name}"] = Count(source, filter=condition)
    inner = queryset.annotate(**parts) if parts else queryset
    text, params = compile_query(inner.query)
    numbered, slots = number_parameters(text, params)
    outputs = [_quoted(column.form.key, column.name) for column in groups]
    for measure in measures:
        outputs += _part_columns(measure)
    listed = ", ".join(outputs)
    return GroupStatement(
        f"SELECT {listed} FROM ({numbered}) AS sp_groups",  # noqa: S608 - Django's own SQL
        slots,
        groups,
        tuple(measures),
    )


def _quoted(template: str, name: str) -> str:
    return template.replace("{0}", 'sp_groups."' + name.replace('"', '""') + '"')


def _part_columns(measure: Measure) -> list[str]:
    if measure.rule != "mean":
        return [_quoted(measure.form.key, measure.name)]
    part = FLOAT.key if measure.form is FLOAT and measure.scale < 0 else DECIMAL.key
    return [_quoted(part, f"sp_s_{measure.name}"), _quoted(COUNT.key, f"sp_n_{measure.name}")]


def _measure(name: str, aggregate: Any, query: Query, route: Route) -> Measure:
    kind = type(aggregate)
    distinct = bool(getattr(aggregate, "distinct", False))
    if kind is Count and (not distinct or _is_disjoint(aggregate, query)):
        return Measure(name, COUNT, "sum", nullable=False)
    form = form_of(aggregate.output_field)
    if kind is Sum and not distinct and form in _NUMBERS:
        return Measure(name, _sum_form(form), "sum")
    if kind in (Min, Max) and form in _SORTED:
        _check_text_order(name, form, aggregate.get_source_expressions()[0])
        return Measure(name, form, "lowest" if kind is Min else "highest")
    if kind is Avg and not distinct:
        return _mean_measure(name, aggregate)
    if route.is_single_shard:
        return Measure(name, COUNT if kind is Count else form, "only")
    what = f"{kind.__name__}{'(distinct)' if distinct else ''}"
    raise DefinitionError(
        "does-not-add-up",
        f"{name} = {what} cannot be put together from the shards' parts",
        fix="use count, total, lowest, highest or mean; or bind the shard key by a required "
        "parameter so that one shard answers",
    )


def _is_disjoint(aggregate: Any, query: Query) -> bool:
    """Are the counted values of different shards never equal?"""
    source = aggregate.get_source_expressions()[0]
    if isinstance(source, Star) or not isinstance(source, Col):
        return False
    model: Any = source.target.model
    if getattr(model, "shard", None) is None or model.shard.reference:
        return False
    key = model._meta.get_field(model.shard.key).column
    return source.target.column == key and source.alias == query.get_initial_alias()


def _sum_form(form: WireForm) -> WireForm:
    return {INTEGER: COUNT, BIGINT: BIGINT_SUM}.get(form, form)


def _check_text_order(name: str, form: WireForm, source: Any) -> None:
    if form is TEXT and not is_in_our_order(source):
        raise DefinitionError(
            "foreign-collation",
            f"{name} compares texts in an order that is not the cluster's",
            fix=f'compare Collate(..., "{TEXT_COLLATION}")',
        )


def _mean_measure(name: str, aggregate: Any) -> Measure:
    source: Any = aggregate.get_source_expressions()[0].output_field
    form = form_of(source)
    if form in (INTEGER, BIGINT, COUNT):
        return Measure(name, FLOAT, "mean")
    if form is FLOAT:
        return Measure(name, FLOAT, "mean", scale=-1)
    if isinstance(source, models.DecimalField):
        return Measure(name, DECIMAL, "mean", scale=int(source.decimal_places or 0) + 6)
    raise DefinitionError(
        "does-not-add-up",
        f"{name} is a mean of {form.name} values",
        fix="take the mean of a number",
    )


def check_order(names: Sequence[str], columns: Sequence[Column]) -> None:
    """Refuse an order by what an aggregate's answer does not have."""
    known = {column.name for column in columns}
    for name in names:
        if name.removeprefix("-") not in known:
            raise DefinitionError(
                "unknown-order",
                f"is ordered by {name!r}; its answer has {', '.join(sorted(known))}",
                fix="order by a group or an aggregate",
            )
