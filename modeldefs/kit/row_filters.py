"""Row filters: a caller that may see and write only the rows which hold its own values.

A model names its *filter fields* (``class Shard: filter = "tenant"``); a key, or a token, gives
values for some. Every statement that runs for such a caller is compiled anew with its filter: each
table that the SQL names is shadowed by a WITH query of the same name which holds the caller's
rows only, so that no join, subquery or aggregate can reach past it, however it is written.
Postgres inlines that query: the plan is the one of a condition on the table.

Here is the first of two walls; the other is row level security (shardnode/storage/row_security).

Invariant: a table is read whole by a filtered caller only if its model says ``shared = True``; one
that lacks a field of the filter is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.models.sql.query import Query

from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.parameters import KINDS, BadValue, ParameterSpec
from modeldefs.kit.query_tree import subqueries_of, used_tables
from modeldefs.kit.tracing import Slot
from modeldefs.kit.wireforms import form_of

FILTER_PREFIX = "sp_filter_"  # of the slot that a statement's value of a filter field fills
FILTER_TEXT_MAX = 200
# Types of which equal values have one text, as those of a shard key.
FILTER_TYPES: Mapping[str, ParameterSpec] = {
    kind.pg_type: ParameterSpec("value", kind, required=True, length_max=FILTER_TEXT_MAX)
    for kind in KINDS.values()
    if kind.pg_type in ("bigint", "text", "uuid")
}

Fields = tuple[str, ...]  # names of filter fields, ascending


@dataclass(frozen=True, slots=True)
class FilterColumn:
    """A filter field of one model."""

    field: str
    column: str  # quoted
    pg_type: str


def filter_column(model: Any, field: str) -> FilterColumn:
    """Return the column of a model's filter field."""
    found = model._meta.get_field(field)
    return FilterColumn(field, quoted(found.column), form_of(found).pg_type)


def filter_columns(model: Any, fields: Iterable[str]) -> tuple[FilterColumn, ...]:
    """Return the columns of some filter fields, in the order of their names."""
    return tuple(filter_column(model, field) for field in sorted(fields))


def quoted(name: str) -> str:
    """Return a name as it stands in SQL."""
    return '"' + name.replace('"', '""') + '"'


def may_filter(model: Any, fields: Iterable[str]) -> bool:
    """Has the model all of these filter fields?"""
    return set(fields) <= set(model.shard.filter)


def taken_by(models: Iterable[Any]) -> frozenset[str] | None:
    """Return the filter fields that all of these models have; None if all are shared."""
    taken: frozenset[str] | None = None
    for model in models:
        if not model.shard.shared:
            own = frozenset(model.shard.filter)
            taken = own if taken is None else taken & own
    return taken


def models_of(query: Query, tables: Mapping[str, Any]) -> list[Any]:
    """Return the models whose tables a query reads, at whatever depth."""
    found = {query.get_meta().db_table: query.model}
    for each in (query, *subqueries_of(query)):
        for _, source in used_tables(each):
            found[source.table_name] = tables.get(source.table_name)
    return [model for model in found.values() if model is not None]


def declared_fields(models: Iterable[Any]) -> dict[str, str]:
    """Return the Postgres type of every filter field that the models declare, by name."""
    return {
        field: filter_column(model, field).pg_type
        for model in models
        for field in model.shard.filter
    }


def canonical_value(pg_type: str, text: str) -> str:
    """Return the one text of a filter's value.

    Raises:
        BadValue: It is no value of the type, or empty: unset means no row, so it can be none.
    """
    if not text:
        raise BadValue("too-short", "is empty")
    return FILTER_TYPES[pg_type].text_of(text)


def filter_errors(declared: Mapping[str, Any]) -> Iterator[DefinitionError]:
    """Yield what is wrong with the filter fields of the models together."""
    kinds: dict[str, tuple[str, str]] = {}
    for model in declared.values():
        where = f"{model.__module__}.{model.__name__}"
        for field in model.shard.filter:
            pg_type = filter_column(model, field).pg_type
            if pg_type == "integer":
                pg_type = "bigint"
            if pg_type not in FILTER_TYPES:
                yield DefinitionError(
                    "unsupported-filter",
                    f"{model.__name__}.{field} filters rows by a {pg_type}",
                    fix="filter by an integer, a text or a UUID",
                    where=where,
                )
                continue
            first = kinds.setdefault(field, (pg_type, model.__name__))
            if first[0] != pg_type:
                yield DefinitionError(
                    "filter-types-differ",
                    f"{model.__name__}.{field} is a {pg_type}, {first[1]}.{field} a {first[0]}: "
                    "one key could not filter both",
                    fix="give both fields one type, or other names",
                    where=where,
                )


# -- compiling with a filter ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filtering:
    """What is compiled at the moment is for callers with a filter on these fields."""

    fields: Fields
    tables: Mapping[str, Any]


_active: ContextVar[Filtering | None] = ContextVar("row_filtering", default=None)


def active_filtering() -> Filtering | None:
    """Return what the statement that is compiled at the moment is filtered by."""
    return _active.get()


@contextmanager
def filtering(fields: Fields, tables: Mapping[str, Any]) -> Iterator[None]:
    """Compile for callers with a filter on these fields."""
    token = _active.set(Filtering(fields, tables))
    try:
        with grouping_by_all(connections["default"]):
            yield
    finally:
        _active.reset(token)


@contextmanager
def grouping_by_all(connection: Any) -> Iterator[None]:
    """Let Django group by every column that it selects.

    Postgres knows that a primary key decides its row of a table, but not of a WITH query.
    """
    name, features = "allows_group_by_selected_pks", vars(connection.features)
    before = features.get(name)
    features[name] = False
    try:
        yield
    finally:
        if before is None:
            del features[name]
        else:
            features[name] = before


def filtered(text: str, params: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """Return SQL whose tables hold the rows of the filter only; unchanged where there is none.

    Raises:
        DefinitionError: It names a table that cannot take the filter.
    """
    active = _active.get()
    if active is None:
        return text, tuple(params)
    parts, own = shadows(text, active.tables, active.fields)
    if not parts:
        return text, tuple(params)
    return f"WITH {', '.join(parts)} {text}", (*own, *params)


def shadows(text: str, tables: Mapping[str, Any], fields: Fields) -> tuple[list[str], list[Slot]]:
    """Return a WITH query for each table that the SQL names, and their parameters.

    Raises:
        DefinitionError: One of them cannot take the filter.
    """
    parts: list[str] = []
    params: list[Slot] = []
    for table, model in tables.items():
        name = quoted(table)
        if name not in text or model.shard.shared:
            continue
        if not may_filter(model, fields):
            raise DefinitionError(
                "unfilterable",
                f"{model.__name__} has no filter field {', '.join(fields)}",
                fix="declare it: class Shard: filter = ..., or shared = True",
            )
        condition, own = condition_on(model, fields, prefix="")
        # Names and types are our own and quoted: no value is part of this text.
        parts.append(
            f"{name} AS NOT MATERIALIZED (SELECT * FROM {name} WHERE {condition})"  # noqa: S608
        )
        params += own
    return parts, params


def condition_on(model: Any, fields: Fields, *, prefix: str) -> tuple[str, list[Slot]]:
    """Return the condition that a row of a model is the caller's, and its parameters."""
    columns = filter_columns(model, fields)
    text = " AND ".join(f"{prefix}{each.column} = %s::{each.pg_type}" for each in columns)
    return text, [Slot(FILTER_PREFIX + each.field) for each in columns]
