"""Which shards can hold the rows of a traced read, and whether it may be asked of them apart.

Two questions, answered at load time from Django's own query tree. *Where*: an equality on the
shard key makes a read targeted, a list of keys makes it a list, anything else must scatter. *May
it*: every table it touches must lie on the same shard as the row it starts from. A read that joins
rows which may live elsewhere would silently lose them, so it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from django.db import models
from django.db.models import lookups
from django.db.models.expressions import Col, Value, Window
from django.db.models.functions import Random
from django.db.models.sql.datastructures import Join
from django.db.models.sql.query import Query
from django.db.models.sql.where import AND, ExtraWhere, NothingNode, WhereNode

from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.query_tree import expressions_of, own_subqueries, subqueries_of, used_tables
from modeldefs.kit.tracing import Param
from modeldefs.kit.wireforms import form_of

# By the Postgres type of a shard key: its Python type.
_KEY_TYPES: Mapping[str, type] = {"bigint": int, "text": str, "uuid": UUID}

Reach = Literal["targeted", "list", "scatter", "reference"]


@dataclass(frozen=True, slots=True)
class Route:
    """Where the rows of a read are."""

    reach: Reach
    parameter: str | None = None  # the parameter that carries the shard key or keys
    constants: tuple[Any, ...] = ()  # shard keys that stand in the definition itself

    @property
    def is_single_shard(self) -> bool:
        """Does one shard hold the whole answer, whatever the parameters?"""
        return self.reach in ("targeted", "reference")


def route_of(query: Query, tables: Mapping[str, type[models.Model]]) -> Route:
    """Return where the rows of a query are.

    Args:
        query: The query of a traced QuerySet.
        tables: The declared models by table name.

    Raises:
        DefinitionError: The query touches rows that may lie on another shard.
    """
    base = model_of(query)
    check_shape(query)
    if base.shard.reference:
        _check_reference_base(query, tables)
        return Route("reference")
    local = _colocated_aliases(query, tables)
    route = _route_by_key(query.where, local)
    _check_subqueries(query, local, tables)
    if route.reach in ("list", "scatter"):
        _check_windows(query, local)
    return route


def model_of(query: Query) -> Any:
    """Return the model that a query starts from, which must be one of the cluster's."""
    model: Any = query.model
    if model is None or not hasattr(model, "shard"):
        name = "nothing" if model is None else model.__name__
        raise DefinitionError(
            "foreign-model",
            f"reads {name}, which is no model of the cluster",
            fix="derive it from Document or Reference",
        )
    return model


def check_shape(query: Query) -> None:
    """Refuse the parts of a QuerySet that a sharded answer cannot keep."""
    refusals = (
        (
            query.combinator,
            "union",
            "union(), intersection() and difference()",
            "use Q objects: filter(Q(...) | Q(...))",
        ),
        (
            query.is_sliced,
            "slice",
            "a slice",
            "let the caller say `limit`, or use @aggregate(top=)",
        ),
        (
            query.distinct,
            "distinct",
            "distinct()",
            "use Exists(...) instead of the join that doubles rows, or @aggregate and group",
        ),
        (query.select_for_update, "row-lock", "select_for_update()", "lock inside a @mutation"),
        (query.extra or query.extra_tables, "raw-sql", "extra()", "use Django expressions"),
        (
            query.select_related,
            "select-related",
            "select_related()",
            "annotate(name=F('relation__field'))",
        ),
        (
            query.deferred_loading[0],
            "deferred-fields",
            "defer() or only()",
            "use values(...) to choose fields",
        ),
    )
    _refuse_any(*refusals)
    for each in (query, *subqueries_of(query)):
        if each is not query:
            _refuse_any(
                (each.combinator, "union", "a union in a subquery", "use Q objects"),
                (each.extra or each.extra_tables, "raw-sql", "extra()", "use Django expressions"),
            )
        for node in expressions_of(each):
            _check_node(node)


def _refuse_any(*refusals: tuple[Any, str, str, str]) -> None:
    for present, code, what, fix in refusals:
        if present:
            raise DefinitionError(code, f"the read uses {what}", fix=fix)


def _check_node(node: Any) -> None:
    rhs = getattr(node, "rhs", None)
    symbol = rhs if isinstance(rhs, Param) else None
    _refuse_any(
        (type(node).__name__ == "RawSQL", "raw-sql", "RawSQL", "use Django expressions"),
        (isinstance(node, ExtraWhere), "raw-sql", "extra()", "use Django expressions"),
        (isinstance(node, Random), "random", "Random()", "choose in the client"),
        (
            symbol is not None and symbol.is_list and not isinstance(node, lookups.In),
            "list-as-value",
            f"the list {symbol!r} as if it were one value",
            "look it up with `__in`, or declare the parameter as one value",
        ),
        (
            symbol is not None and not symbol.is_list and isinstance(node, lookups.In),
            "value-as-list",
            f"the single value {symbol!r} as if it were a list",
            "declare the parameter as list[...], or compare without `__in`",
        ),
    )


def _check_reference_base(query: Query, tables: Mapping[str, type[models.Model]]) -> None:
    for each in (query, *subqueries_of(query)):
        for alias, source in used_tables(each):
            model: Any = tables.get(source.table_name)
            if model is None or not model.shard.reference:
                raise DefinitionError(
                    "reference-joins-documents",
                    f"starts from the reference model {model_of(query).__name__} and joins "
                    f"{alias}, whose rows are spread over the shards",
                    fix="start from the document model and join the reference model to it",
                )


def _key_columns(model: Any) -> tuple[str, ...]:
    return (model._meta.get_field(model.shard.key).column,)


def _colocated_aliases(
    query: Query, tables: Mapping[str, type[models.Model]]
) -> dict[str, str | None]:
    """Return each joined alias with the column of its shard key; None for reference tables."""
    local: dict[str, str | None] = {}
    for alias, source in used_tables(query):
        model: Any = tables.get(source.table_name)
        if model is None:
            raise DefinitionError(
                "foreign-model",
                f"joins the table {source.table_name}, which is no model of the cluster",
                fix="join only models of modeldefs",
            )
        if model.shard.reference:
            local[alias] = None
            continue
        (key,) = _key_columns(model)
        if isinstance(source, Join):
            _check_join(source, key, model, local)
        local[alias] = key
    if not local:
        model = model_of(query)
        local[query.get_initial_alias()] = (
            None if model.shard.reference else _key_columns(model)[0]
        )
    return local


def _check_join(join: Join, key: str, model: Any, local: Mapping[str, str | None]) -> None:
    parent_key = local.get(str(join.parent_alias))
    if parent_key is not None and (parent_key, key) in {tuple(pair) for pair in join.join_cols}:
        return
    raise DefinitionError(
        "not-colocated",
        f"joins {model.__name__}, whose rows may lie on another shard than the row they belong to",
        fix=f"join on the shard key of both, make {model.__name__} a Reference, or ask twice",
    )


def _conjuncts(where: Any) -> Iterator[Any]:
    """Yield the conditions that every row of the answer fulfils."""
    if isinstance(where, WhereNode):
        if where.negated:
            return
        if where.connector == AND or len(where.children) == 1:
            for child in where.children:
                yield from _conjuncts(child)
        return
    yield where


def _is_key(expression: Any, local: Mapping[str, str | None]) -> bool:
    return (
        isinstance(expression, Col)
        and local.get(str(expression.alias)) is not None
        and local[str(expression.alias)] == expression.target.column
    )


def _route_by_key(where: WhereNode, local: Mapping[str, str | None]) -> Route:
    several: Route | None = None
    for condition in _conjuncts(where):
        if isinstance(condition, NothingNode):
            return Route("list", constants=())
        if not isinstance(condition, lookups.Exact | lookups.In):
            continue
        if not _is_key(condition.lhs, local):
            continue
        kind = form_of(condition.lhs.target).pg_type
        if isinstance(condition, lookups.In):
            several = _list_route(condition.rhs, kind) or several
        elif (one := _one_route(condition.rhs, kind)) is not None:
            return one
    return several or Route("scatter")


def _one_route(value: Any, kind: str) -> Route | None:
    if isinstance(value, Param):
        return Route("targeted", parameter=value.name) if value.pg_type == kind else None
    if isinstance(value, Value):
        value = value.value
    return Route("targeted", constants=(value,)) if _is_shard_key(value, kind) else None


def _list_route(values: Any, kind: str) -> Route | None:
    if isinstance(values, Param):
        return Route("list", parameter=values.name) if values.pg_type == f"{kind}[]" else None
    if not isinstance(values, list | tuple):
        return None
    keys = tuple(item for item in values if item is not None)
    return Route("list", constants=keys) if all(_is_shard_key(k, kind) for k in keys) else None


def _is_shard_key(value: Any, kind: str) -> bool:
    # Only a value of the column's own type has the column's text, and so its bucket: 5.0 finds
    # the row of 5 by SQL, but hashes apart.
    return type(value) is int if kind == "bigint" else isinstance(value, _KEY_TYPES[kind])


def _check_subqueries(
    outer: Query, outer_local: Mapping[str, str | None], tables: Mapping[str, type[models.Model]]
) -> None:
    for inner in own_subqueries(outer):
        local = _colocated_aliases(inner, tables)
        has_documents = any(key is not None for key in local.values())
        if has_documents and not _is_tied(inner, outer, local, outer_local):
            raise DefinitionError(
                "not-colocated",
                f"has a subquery on {model_of(inner).__name__} whose rows may lie on another "
                "shard",
                fix="tie it to the row by the shard key: filter(<key>=OuterRef('<key>'))",
            )
        # Whatever is tied to the row lies with it, so a deeper query may be tied to either.
        _check_subqueries(inner, {**outer_local, **local}, tables)


def _is_tied(
    inner: Query,
    outer: Query,
    local: Mapping[str, str | None],
    outer_local: Mapping[str, str | None],
) -> bool:
    for condition in _conjuncts(inner.where):
        if isinstance(condition, lookups.Exact) and _is_key(condition.lhs, local):
            if _is_key(condition.rhs, outer_local):
                return True
            if isinstance(condition.rhs, Param) and _bound_to(
                condition.rhs, outer.where, outer_local
            ):
                return True
    return _is_key_list(inner, outer, local, outer_local)


def _bound_to(param: Param, where: WhereNode, local: Mapping[str, str | None]) -> bool:
    return any(
        isinstance(condition, lookups.Exact)
        and _is_key(condition.lhs, local)
        and isinstance(condition.rhs, Param)
        and condition.rhs.name == param.name
        for condition in _conjuncts(where)
    )


def _is_key_list(
    inner: Query,
    outer: Query,
    local: Mapping[str, str | None],
    outer_local: Mapping[str, str | None],
) -> bool:
    """Is the subquery a list of shard keys that the outer shard key is looked for in?"""
    selects_key = len(inner.select) == 1 and _is_key(inner.select[0], local)
    if not selects_key or inner.annotation_select:
        return False
    # A first N, a distinct or a window of the list would be taken on each shard for itself.
    if (
        inner.is_sliced
        or inner.distinct
        or any(isinstance(node, Window) for node in expressions_of(inner))
    ):
        return False
    return any(
        isinstance(node, lookups.In) and node.rhs is inner and _is_key(node.lhs, outer_local)
        for node in expressions_of(outer)
    )


def check_page(query: Query) -> None:
    """Refuse what cannot be cut into pages without losing rows or changing their values."""
    for _, source in used_tables(query):
        if isinstance(source, Join) and _is_to_many(source.join_field):
            raise DefinitionError(
                "doubling-join",
                f"joins {source.table_name}, of which several rows may belong to one: the row "
                "would stand on a page several times, and be cut off between them",
                fix="ask with Exists(...) or Subquery(...), or start from the other model",
            )
    if any(isinstance(node, Window) for node in expressions_of(query)):
        raise DefinitionError(
            "window-in-page",
            "has a window, which would be counted anew behind each cursor",
            fix="use Subquery(...), or return one row with .one()",
        )


def _is_to_many(join_field: Any) -> bool:
    return bool(
        getattr(join_field, "one_to_many", False) or getattr(join_field, "many_to_many", False)
    )


def _check_windows(query: Query, local: Mapping[str, str | None]) -> None:
    for node in expressions_of(query):
        if not isinstance(node, Window):
            continue
        by = node.partition_by.get_source_expressions() if node.partition_by else []
        if not any(_is_key(part, local) for part in by):
            raise DefinitionError(
                "window-across-shards",
                "has a window whose rows lie on several shards",
                fix="name the shard key in partition_by, or bind it by a required parameter",
            )
