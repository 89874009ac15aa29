"""What is known of an endpoint before any request: its route and statements per parameter set.

A plan is made from one trace. The catalog makes those of ordinary parameter sets at load time, so
that a definition that cannot be served is refused before it serves; rarer sets are made on first
use, by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.core.exceptions import FieldError
from django.db import models

from modeldefs.kit.aggregates import (
    GroupStatement,
    check_order,
    group_statement,
    totals_statement,
    with_totals,
)
from modeldefs.kit.classify import Route, check_page, check_shape, model_of, route_of
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.point_reads import point_statement
from modeldefs.kit.row_filters import Fields, filtering, models_of, taken_by
from modeldefs.kit.row_versions import tag_form
from modeldefs.kit.statements import (
    Column,
    CountStatement,
    Statement,
    count_statement,
    page_statement,
)
from modeldefs.kit.steady import is_steady
from modeldefs.kit.tracing import Trace, trace

Tables = Mapping[str, type[models.Model]]


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How one endpoint is read with one set of present parameters."""

    route: Route
    first: Statement | None = None  # a page from its start
    after: Statement | None = None  # a page behind a cursor
    groups: GroupStatement | None = None
    point: Statement | None = None  # many reads of one row each, where a read has one at most
    # A page of named buckets, from its start or behind a cursor: made when a walk asks for one.
    ranged: Callable[[bool], Statement] | None = field(default=None, compare=False, repr=False)
    # Of a page: how many rows it has in all, made when somebody wants to know.
    counted: Callable[[], CountStatement] | None = field(default=None, compare=False, repr=False)
    # Does the answer depend on rows and parameters alone?
    is_steady: bool = False
    tag_form: bytes = b""  # of a read of one row: its ETag, with %b for the hash
    # The fields that a caller's row filter may be on; None: on any, as all it reads is shared.
    takes: frozenset[str] | None = frozenset()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The members of one answered row or group."""
        if self.groups is not None:
            return self.groups.columns
        if self.first is None:
            return ()
        return self.first.columns

    @property
    def slots(self) -> tuple[str, ...]:
        """The parameters that the statement takes, without the framework's own."""
        statement = self.groups or self.first
        return statement.slots if statement is not None else ()


def filtered_plan(
    endpoint: Endpoint[Any, Any], presence: frozenset[str], tables: Tables, fields: Fields
) -> ReadPlan:
    """Return the plan of a read for callers with a row filter on these fields.

    Raises:
        DefinitionError: As of ``read_plan``; or it reads what cannot be filtered so.
    """
    with filtering(fields, tables):
        plan = read_plan(endpoint, presence, tables)
    ranged, counted = plan.ranged, plan.counted

    # What is compiled later is compiled with the filter too.
    def filtered_range(after: bool) -> Statement:
        assert ranged is not None
        with filtering(fields, tables):
            return ranged(after)

    def filtered_count() -> CountStatement:
        assert counted is not None
        with filtering(fields, tables):
            return counted()

    return replace(
        plan,
        ranged=filtered_range if ranged is not None else None,
        counted=filtered_count if counted is not None else None,
    )


def read_plan(endpoint: Endpoint[Any, Any], presence: frozenset[str], tables: Tables) -> ReadPlan:
    """Trace a read with these parameters present and return its plan.

    Raises:
        DefinitionError: It cannot be answered correctly on several shards.
    """
    where = f"{endpoint.function.__module__}.{endpoint.name}"
    shown = ", ".join(sorted(presence)) or "no parameter"
    try:
        traced = trace(endpoint, presence)
        plan = _plan_of(traced, tables)
        _check_tags(endpoint, plan)
        return replace(plan, takes=taken_by(models_of(traced.queryset.query, tables)))
    except DefinitionError as refusal:
        raise refusal.at(f"{where} (given {shown})") from None
    except FieldError as fault:
        raise DefinitionError(
            "unclear-type",
            f"Django cannot tell a column or its type: {fault}",
            fix="name existing fields, and say the type where they mix: "
            'Value("x", models.TextField())',
            where=f"{where} (given {shown})",
        ) from fault


def _check_tags(endpoint: Endpoint[Any, Any], plan: ReadPlan) -> None:
    """Refuse a declaration that only asks for tags, of a read whose answers can have none."""
    cache = endpoint.options.cache
    # A single row has its own version as its tag, whatever it was made of.
    has_tag = plan.is_steady or endpoint.shape == "single"
    if cache is not None and not cache.keeps and not has_tag:
        raise DefinitionError(
            "fleeting-answer",
            "asks for an ETag, but its answer changes without any row changing: it reads the "
            "clock, chance, or SQL that is not Django's",
            fix="make the moment a parameter, or say how long an answer may be used again: "
            "Cache(max_age_s=...)",
        )


def _plan_of(traced: Trace, tables: Tables) -> ReadPlan:
    endpoint, queryset = traced.endpoint, traced.queryset
    model = model_of(queryset.query)
    if not hasattr(endpoint, "model"):
        endpoint.model = model
    if endpoint.model is not model:
        raise DefinitionError(
            "result-of-another-model",
            f"is declared for {endpoint.model.__name__} and reads {model.__name__}",
            fix=f"annotate it with {model.__name__}, or say on={model.__name__}",
        )
    if queryset._prefetch_related_lookups:
        raise DefinitionError(
            "prefetch",
            "the read uses prefetch_related()",
            fix="annotate, or ask a second endpoint",
        )
    check_shape(queryset.query)
    queryset = _without_default_order(queryset)
    route = route_of(queryset.query, tables)
    if endpoint.kind == "aggregate":
        return _aggregate_plan(traced, queryset, route)
    if traced.totals is not None or queryset.query.group_by is not None:
        raise DefinitionError(
            "grouped-page", "groups rows", fix="declare it with @aggregate -> Groups[...]"
        )
    check_page(queryset.query)
    if traced.is_single != (endpoint.shape == "single"):
        raise DefinitionError(
            "result-of-another-kind",
            "returns .one() but is annotated Page, or the other way round",
            fix="annotate Model | None for .one(), Page[Model] for rows",
        )
    order = endpoint.options.order

    def ranged(after: bool) -> Statement:
        return page_statement(queryset, order, after=after, in_buckets=True)

    first = page_statement(queryset, order, after=False)
    is_walk = endpoint.shape == "page" and route.reach in ("scatter", "list")
    return ReadPlan(
        route,
        first=first,
        after=None if endpoint.shape == "single" else page_statement(queryset, order, after=True),
        point=point_statement(queryset, {s.name: s.pg_type for s in endpoint.parameters})
        if route.is_single_shard
        else None,
        ranged=ranged if is_walk else None,
        counted=(lambda: count_statement(queryset)) if endpoint.shape == "page" else None,
        is_steady=is_steady(queryset.query),
        tag_form=tag_form(model, first.columns, is_whole=route.is_single_shard)
        if endpoint.shape == "single"
        else b"",
    )


def _aggregate_plan(traced: Trace, queryset: Any, route: Route) -> ReadPlan:
    endpoint = traced.endpoint
    read = queryset if traced.totals is None else with_totals(queryset, traced.totals)
    if traced.totals is not None:
        if endpoint.shape != "totals":
            raise DefinitionError(
                "result-of-another-kind",
                "returns totals() but is annotated Groups",
                fix="annotate int, or dict[str, int] for several totals",
            )
        if endpoint.is_scalar and len(traced.totals) != 1:
            raise DefinitionError(
                "result-of-another-kind",
                f"is annotated as one value and returns {len(traced.totals)} totals",
                fix="annotate dict[str, int]",
            )
        statement = totals_statement(queryset, traced.totals, route)
    else:
        if endpoint.shape != "groups":
            raise DefinitionError(
                "result-of-another-kind",
                "returns groups but is annotated as totals",
                fix="annotate Groups[key, value]",
            )
        statement = group_statement(queryset, route)
    check_order(endpoint.options.order, statement.columns)
    return ReadPlan(route, groups=statement, is_steady=is_steady(read.query))


def _without_default_order(queryset: Any) -> Any:
    # Meta.ordering is a habit of the model, not the order of this endpoint, which is declared.
    if queryset.query.default_ordering and not queryset.query.order_by:
        chosen = queryset.all()
        chosen.query.default_ordering = False
        return chosen
    return queryset
