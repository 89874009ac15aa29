"""Reads of at most one row: one statement for as many of them as arrive together.

A read that binds the primary key by equality has one row or none, so its order, its limit and its
sort keys mean nothing. Such reads of one endpoint differ in their parameters only, and are asked
for together: each parameter as an array, the read itself inside a LATERAL join over its elements,
the answer as the element's number and the row's JSON. For single rows Postgres writes JSON at
least as cheaply as anybody who reads it first.

Invariant: the JSON is byte for byte what the encoder of lists makes of the same row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import lookups
from django.db.models.expressions import Col
from django.db.models.sql.where import AND, WhereNode

from modeldefs.kit.statements import (
    Column,
    Statement,
    cast_output,
    compile_query,
    number_parameters,
    output_cast,
    output_columns,
)
from modeldefs.kit.tracing import Param
from modeldefs.kit.wireforms import FLOAT, JSON

ELEMENT = "sp_e"


def point_statement(queryset: Any, types: Mapping[str, str]) -> Statement | None:
    """Return the statement for many reads at once; None if one may have more than one row.

    Args:
        queryset: A traced read that may be paged.
        types: The Postgres type of each parameter.
    """
    if not _binds_primary_key(queryset.query):
        return None
    columns = output_columns(queryset)
    computed = queryset.query.annotations
    outputs = {
        f"sp_{n}": cast_output(column.name, _json_cast(column, column.name in computed))
        for n, column in enumerate(columns)
    }
    chosen = queryset.annotate(**outputs).values_list(*outputs)
    text, params = compile_query(chosen.query)
    body, slots = number_parameters(text, params, symbol=f"{ELEMENT}.p{{0}}")
    if not slots or any(types.get(slot, "[]").endswith("[]") for slot in slots):
        return None
    arrays = ", ".join(f"${n}::{types[slot]}[]" for n, slot in enumerate(slots, 1))
    parts = ", ".join(f"p{n}" for n in range(1, len(slots) + 1))
    names = ", ".join('"' + column.name.replace('"', '""') + '"' for column in columns)
    # Names are quoted and types are our own: no value is part of this text.
    sql = (
        f"SELECT {ELEMENT}.n, row_to_json(sp_row)::text "  # noqa: S608
        f"FROM unnest({arrays}) WITH ORDINALITY AS {ELEMENT}({parts}, n) "
        f"CROSS JOIN LATERAL ({body}) AS sp_row({names})"
    )
    return Statement(sql, slots, columns)


def _json_cast(column: Column, is_computed: bool) -> str:
    # These two cross as text that is JSON already; inside row_to_json it would be quoted.
    if column.form is FLOAT:
        return "({0})::float8"
    if column.form is JSON:
        return "({0})::jsonb"
    return output_cast(column, is_computed=is_computed)


def _binds_primary_key(query: Any) -> bool:
    key = query.get_meta().pk
    base = query.get_initial_alias()
    return any(
        isinstance(condition, lookups.Exact)
        and isinstance(condition.lhs, Col)
        and condition.lhs.alias == base
        and condition.lhs.target is key
        and isinstance(condition.rhs, Param)
        for condition in _conjuncts(query.where)
    )


def _conjuncts(where: Any) -> list[Any]:
    if not isinstance(where, WhereNode):
        return [where]
    if where.negated or where.connector != AND:
        return []
    return [found for child in where.children for found in _conjuncts(child)]
