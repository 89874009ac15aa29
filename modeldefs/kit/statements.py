"""From a traced read to one prepared statement with numbered parameters.

Django's SQL is kept as it is. Constants of the definition become literals, each symbol becomes one
``$n`` however often it occurs, and every output column is cast to its wire form. Symbols and
constants look the same to Postgres' planner in every place, so GROUP BY and index matching see
equal expressions as equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections, models
from django.db.models import F, Q
from django.db.models.expressions import Col, Expression
from django.db.models.functions import Coalesce, Collate, Extract
from django.db.models.functions.datetime import TruncBase
from django.db.models.sql.constants import LOUTER
from django.db.models.sql.query import Query
from psycopg import sql as pgsql

from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.query_tree import walk
from modeldefs.kit.row_filters import filtered
from modeldefs.kit.tracing import Param, Slot
from modeldefs.kit.wireforms import COUNT, INTEGER, TEXT, TEXT_COLLATION, WireForm, form_of

LIMIT_SLOT = "sp_limit"
AFTER_SLOT = "sp_after_{0}"
BUCKETS_SLOT = "sp_buckets"
# A limit that no author writes: it marks the place of the real one in the SQL text.
_LIMIT_MARK = 7_203_685_477
_PLACEHOLDER = re.compile(r"%[s%]")


@dataclass(frozen=True, slots=True)
class Column:
    """One member of an answer's rows."""

    name: str
    form: WireForm
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Key:
    """One column of an order, as the merge sees it."""

    name: str
    form: WireForm
    descending: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """One prepared statement: its text, what fills its parameters, and what comes out."""

    sql: str
    slots: tuple[str, ...]
    columns: tuple[Column, ...]
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class CountStatement:
    """How many rows a page has in all, whatever its limit."""

    body: str  # a SELECT of one column, without a limit
    slots: tuple[str, ...]

    @property
    def exact(self) -> str:
        """The number of rows, and that it is no guess."""
        return self._counting(self.body)

    def up_to(self, most: int) -> str:
        """Return the same, which stops behind so many rows."""
        return self._counting(f"{self.body} LIMIT {most + 1}")

    @property
    def explained(self) -> str:
        """What the planner thinks of it, as JSON."""
        return f"EXPLAIN (FORMAT JSON) {self.body}"

    @staticmethod
    def _counting(body: str) -> str:
        return f"SELECT count(*)::bigint, 0::bigint FROM ({body}) AS sp_counted"  # noqa: S608


class _Cast(Expression):
    """An expression in one of its wire form's two casts."""

    def __init__(self, inner: Any, template: str, output: models.Field[Any, Any]) -> None:
        super().__init__(output_field=output)
        self.inner = inner
        self.template = template

    def get_source_expressions(self) -> list[Any]:
        return [self.inner]

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        (self.inner,) = exprs

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, Any]:
        inner, params = compiler.compile(self.inner)
        # The template holds no "%" of its own; it is joined around SQL that may.
        repeat = self.template.count("{0}")
        return self.template.replace("{0}", inner), list(params) * repeat


class _InBuckets(Expression):
    """Is the row's bucket one of those that are asked for?"""

    def __init__(self) -> None:
        super().__init__(output_field=models.BooleanField())
        self.bucket: Any = F("bucket")

    def get_source_expressions(self) -> list[Any]:
        return [self.bucket]

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        (self.bucket,) = exprs

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, Any]:
        bucket, params = compiler.compile(self.bucket)
        return f"({bucket} <@ %s::int4multirange)", [*params, Slot(BUCKETS_SLOT)]


def number_parameters(
    text: str, params: Sequence[Any], *, symbol: str = "${0}"
) -> tuple[str, tuple[str, ...]]:
    """Return SQL with ``$n`` for symbols and literals for constants, and the slots in order.

    ``symbol`` is what stands for a symbol, by its number or its name (``{1}``), where that is not
    a parameter itself.
    """
    slots: list[str] = []
    values = iter(params)

    def place(match: re.Match[str]) -> str:
        if match.group() == "%%":
            return "%"
        value = next(values)
        if isinstance(value, Slot):
            if value.name not in slots:
                slots.append(value.name)
            return symbol.format(slots.index(value.name) + 1, value.name)
        return pgsql.Literal(value).as_string(None)

    return _PLACEHOLDER.sub(place, text), tuple(slots)


def compile_query(query: Query, *, aliases: bool = False) -> tuple[str, tuple[Any, ...]]:
    """Return Django's own SQL for Postgres, with slots among the parameters."""
    # A read that finds nothing is a read: its SQL says so, instead of Django not asking at all.
    compiler = query.get_compiler(connection=connections["default"], elide_empty=False)
    text, params = compiler.as_sql(with_col_aliases=aliases)
    return filtered(text, params)


def output_columns(queryset: Any) -> tuple[Column, ...]:
    """Return what one row of a queryset has, in order: fields by attname, then annotations."""
    query: Query = queryset.query
    annotations = query.annotation_select
    names: list[str]
    if query.values_select or (query.default_cols is False and not query.select):
        chosen = list(query.selected or ()) if query.selected is not None else []
        names = chosen or [*query.values_select, *annotations]
    else:
        names = [f.attname for f in query.get_meta().concrete_fields if f.attname != "bucket"]
        names += list(annotations)
    return tuple(_column(query, name) for name in names if name != "bucket")


def _column(query: Query, name: str) -> Column:
    if name in query.annotations:
        annotation = query.annotations[name]
        is_nullable = not _is_never_null(annotation, query)
        return Column(name, form_of(annotation.output_field), is_nullable)
    path = query.names_to_path(name.split("__"), query.get_meta(), fail_on_missing=True)
    field: Any = path[1]
    crosses = "__" in name
    return Column(name, form_of(field), bool(field.null) or crosses)


def _is_never_null(expression: Any, query: Query) -> bool:
    if isinstance(expression, Coalesce):
        return _is_never_null(expression.get_source_expressions()[-1], query)
    if isinstance(expression, models.Value):
        return expression.value is not None
    if isinstance(expression, models.Count | models.Exists):
        return True
    if isinstance(expression, Col):
        # A column of an outer-joined table is NULL where nothing was joined.
        joined: Any = query.alias_map.get(str(expression.alias))
        is_outer = getattr(joined, "join_type", None) == LOUTER
        return not expression.target.null and not is_outer
    if isinstance(expression, Collate | Extract | TruncBase):
        parts = expression.get_source_expressions()
        return all(_is_never_null(part, query) for part in parts if part)
    return False


def order_keys(queryset: Any, order: Sequence[str]) -> tuple[Key, ...]:
    """Return the order of a page: the declared names, then what makes it total.

    Raises:
        DefinitionError: A name is unknown or may be NULL, or the read orders by itself.
    """
    query: Query = queryset.query
    if query.order_by or query.extra_order_by:
        raise DefinitionError(
            "order-in-query",
            "the read calls order_by()",
            fix='declare it: @query(order="-created,id")',
        )
    meta = query.get_meta()
    names = list(order)
    down = bool(names) and all(name.startswith("-") for name in names)
    # A primary key is unique on each shard; with the shard key it is unique among all.
    options = getattr(query.model, "shard", None)
    for last in dict.fromkeys((meta.pk.attname, getattr(options, "key", None) or meta.pk.attname)):
        if last not in {name.lstrip("-") for name in names}:
            names.append(f"-{last}" if down else last)
    return tuple(_order_key(query, name) for name in names)


def _order_key(query: Query, name: str) -> Key:
    plain = name.removeprefix("-")
    if plain not in query.annotations and plain not in {
        f.attname for f in query.get_meta().concrete_fields
    }:
        raise DefinitionError(
            "unknown-order",
            f"is ordered by {plain!r}, which is neither a field nor an annotation",
            fix="name a field of the model by its column attribute, or annotate it",
        )
    column = _column(query, plain)
    if column.nullable:
        raise DefinitionError(
            "nullable-order",
            f"is ordered by {plain!r}, which may be NULL: rows would be lost between pages",
            fix=f"annotate(sort=Coalesce({plain!r}, Value(...))) and order by it, or make the "
            "field NOT NULL",
        )
    if column.form.name in ("json", "binary", "duration"):
        raise DefinitionError(
            "unsortable-order",
            f"is ordered by {plain!r} of type {column.form.name}",
            fix="order by a scalar column",
        )
    return Key(plain, column.form, name.startswith("-"))


def _after(keys: Sequence[Key], names: Sequence[str]) -> Q:
    """Return the rows behind a position: keyset paging for mixed directions."""
    condition = Q()
    for place in reversed(range(len(keys))):
        key = keys[place]
        bound = Param(AFTER_SLOT.format(place), key.form.pg_type)
        side = "lt" if key.descending else "gt"
        ahead = Q(**{f"{names[place]}__{side}": bound})
        if place == len(keys) - 1:
            condition = ahead
        else:
            # The first comparison repeats what follows, but an index on the column can use it.
            condition = Q(**{f"{names[place]}__{side}e": bound}) & (ahead | condition)
    return condition


def page_statement(
    queryset: Any, order: Sequence[str], *, after: bool, in_buckets: bool = False
) -> Statement:
    """Return the statement of one page: rows in order, from the start or behind a position.

    Args:
        queryset: The rows.
        order: The declared order.
        after: Only those behind a position.
        in_buckets: Only those of buckets that the caller names.
    """
    columns = output_columns(queryset)
    keys = order_keys(queryset, order)
    chosen, names = _sortable(queryset, keys)
    if in_buckets:
        chosen = chosen.filter(_InBuckets())
    if after:
        chosen = chosen.filter(_after(keys, names))
    chosen = chosen.order_by(
        *(
            F(name).desc() if key.descending else F(name).asc()
            for key, name in zip(keys, names, strict=True)
        )
    )
    computed = queryset.query.annotations
    outputs = {
        f"sp_{n}": cast_output(
            column.name, output_cast(column, is_computed=column.name in computed)
        )
        for n, column in enumerate(columns)
    }
    places = {f"sp_k{n}": cast_output(key.name, key.form.key) for n, key in enumerate(keys)}
    chosen = chosen.annotate(**outputs, **places).values_list(*outputs, *places)
    query = chosen.query.clone()
    query.set_limits(0, _LIMIT_MARK)
    text, params = compile_query(query)
    head, mark, tail = text.rpartition(f" LIMIT {_LIMIT_MARK}")
    if not mark or tail.strip():
        raise DefinitionError("unpageable", "Django put no LIMIT at the end of the SQL")
    numbered, slots = number_parameters(head, params)
    return Statement(
        f"{numbered} LIMIT ${len(slots) + 1}::bigint", (*slots, LIMIT_SLOT), columns, keys
    )


def count_statement(queryset: Any) -> CountStatement:
    """Return how the rows of a page are counted."""
    text, params = compile_query(queryset.order_by().values_list("pk").query)
    body, slots = number_parameters(text, params)
    return CountStatement(body, slots)


def _sortable(queryset: Any, keys: Sequence[Key]) -> tuple[Any, list[str]]:
    """Return the queryset with a name for each key by which Postgres sorts as the merge does."""
    chosen, names = queryset, []
    for n, key in enumerate(keys):
        name = key.name
        source = queryset.query.annotations.get(name)
        if source is None:
            source = Col("", queryset.query.get_meta().get_field(name))
        if key.form is TEXT and not is_in_our_order(source):
            name = f"sp_o{n}"
            chosen = chosen.annotate(**{name: Collate(F(key.name), TEXT_COLLATION)})
        names.append(name)
    return chosen, names


def is_in_our_order(expression: Any) -> bool:
    """Does Postgres sort a text by code point, because every column it is made of does so?"""
    explicit = {node.collation for node in walk(expression) if isinstance(node, Collate)}  # type: ignore[attr-defined]
    if explicit:
        return explicit == {TEXT_COLLATION}
    texts = [
        _target(node.target)
        for node in walk(expression)
        if isinstance(node, Col) and form_of(node.target) is TEXT
    ]
    return bool(texts) and all(target.db_collation == TEXT_COLLATION for target in texts)


def _target(column: Any) -> Any:
    while isinstance(column, models.ForeignKey):
        column = column.target_field
    return column


def output_cast(column: Column, *, is_computed: bool) -> str:
    """Return the cast that brings a column to its wire form."""
    # Postgres computes some integers as numeric: EXTRACT(year FROM ...), for one.
    return COUNT.wire if is_computed and column.form is INTEGER else column.form.wire


def cast_output(name: str, template: str) -> Expression:
    """Return a column or annotation in a cast."""
    return _Cast(F(name), template, models.TextField())
