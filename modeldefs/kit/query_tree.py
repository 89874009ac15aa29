"""Walking Django's query tree: tables, expressions and nested queries of a traced read.

Everything that can name a column is visited, once, at whatever depth it stands; a rule about reads
that walks here cannot miss a place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models.expressions import Subquery
from django.db.models.sql.datastructures import BaseTable, Join
from django.db.models.sql.query import Query
from django.db.models.sql.where import WhereNode


def used_tables(query: Query) -> Iterator[tuple[str, BaseTable | Join]]:
    """Yield the tables that a query really joins, by alias."""
    for alias, source in query.alias_map.items():
        if query.alias_refcount.get(alias) and isinstance(source, BaseTable | Join):
            yield alias, source


def children_of(node: Any) -> Iterator[Any]:
    """Yield the direct parts of an expression, lookup or condition."""
    if isinstance(node, WhereNode):
        yield from node.children
    elif hasattr(node, "get_source_expressions"):
        yield from (part for part in node.get_source_expressions() if part is not None)
    rhs = getattr(node, "rhs", None)
    if isinstance(rhs, Query):
        yield rhs
    elif isinstance(rhs, list | tuple):
        yield from (part for part in rhs if hasattr(part, "resolve_expression"))


def walk(node: Any) -> Iterator[Any]:
    """Yield an expression and all its parts, without entering subqueries."""
    yield node
    if isinstance(node, Query | Subquery):
        return
    for child in children_of(node):
        yield from walk(child)


def expressions_of(query: Query) -> Iterator[Any]:
    """Yield every expression of one query, without entering its subqueries."""
    yield from walk(query.where)
    for annotation in query.annotations.values():
        yield from walk(annotation)
    for source in query.alias_map.values():
        if isinstance(source, Join) and source.filtered_relation is not None:
            condition: Any = source.filtered_relation
            yield from walk(condition.resolved_condition)
    for part in (*query.order_by, *(query.group_by if isinstance(query.group_by, tuple) else ())):
        if hasattr(part, "resolve_expression"):
            yield from walk(part)


def subqueries_of(query: Query) -> Iterator[Query]:
    """Yield the queries nested in a query, at any depth."""
    for inner in own_subqueries(query):
        yield inner
        yield from subqueries_of(inner)


def own_subqueries(query: Query) -> Iterator[Query]:
    """Yield the queries that stand directly in a query's expressions."""
    for node in expressions_of(query):
        if isinstance(node, Query):
            yield node
        elif isinstance(node, Subquery):
            yield node.query
