"""The version of a row: a hash of its JSON, which whoever has the row can make.

A stored row says nothing of its own age that survives a dump or a move to another shard, and a
column that counts would have to be in every model. Its JSON does both: the front hashes what it
answers, and a shard has Postgres hash what is stored, in the statement that writes.

Invariant: for one state of a row both give the same version, and another state has another.
Pure but for Django's models: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.statements import Column, output_columns
from modeldefs.kit.wireforms import FLOAT, JSON, WireForm, form_of

VERSION_LENGTH = 32  # hex digits: half of a SHA-256
ENDPOINTS_KNOWN_MAX = 4_096
ROW_TAG = b'"%b"'
# Of what is no row as it is stored: more or fewer members, or none. No write is held to it.
ANSWER_TAG = b'"a-%b"'


def version_of(row: bytes) -> bytes:
    """Return the version of a row, from its JSON."""
    return sha256(row).hexdigest()[:VERSION_LENGTH].encode()


@dataclass(frozen=True, slots=True)
class RowCheck:
    """How Postgres finds the one row that a mutation is about, and tells its version."""

    parameter: str  # of the mutation: the primary key
    table: str  # quoted
    key: str  # the condition that finds the row; "{key}" and "{bucket}" are its parameters
    version: str  # the row's version, as an SQL expression over the table


def whole_columns(model: Any) -> tuple[Column, ...]:
    """Return the members of a row as it is stored, without the framework's own column."""
    return tuple(
        Column(field.attname, form_of(field), bool(field.null))
        for field in model._meta.concrete_fields
        if field.attname != "bucket"
    )


def answers_whole_rows(model: Any) -> bool:
    """Is what a write answers of a row all of it, and nothing else?"""
    return output_columns(model._default_manager.all()) == whole_columns(model)


def members_sql(model: Any, columns: Sequence[Column]) -> str:
    """Return columns of a table, so that row_to_json() of them is what a read of the row gives."""
    return ", ".join(
        f'{_json_form(column.form)} AS "{column.name}"'.replace(
            "{0}", f'"{model._meta.db_table}"."{model._meta.get_field(column.name).column}"'
        )
        for column in columns
    )


def _json_form(form: WireForm) -> str:
    """Return the cast whose row_to_json() is what a read of the same column gives."""
    if form is FLOAT:
        return "({0})::float8"
    return "{0}" if form is JSON else form.wire


def version_sql(model: Any) -> str:
    """Return the version of a row of the model's table, as an SQL expression over it."""
    members = members_sql(model, whole_columns(model))
    row = f"(SELECT row_to_json(sp_v)::text FROM (SELECT {members}) AS sp_v)"  # noqa: S608
    return f"left(encode(sha256(convert_to({row}, 'UTF8')), 'hex'), {VERSION_LENGTH})"


@lru_cache(maxsize=ENDPOINTS_KNOWN_MAX)
def row_check(endpoint: Endpoint[Any, Any]) -> RowCheck | None:
    """Return how the one row that a mutation is about is looked at.

    None where its parameters do not name one: the primary key is no required parameter of the
    column's own type.
    """
    if endpoint.kind != "mutation" or endpoint.is_many:
        return None
    meta = endpoint.model._meta
    pg_type = form_of(meta.pk).pg_type
    for spec in endpoint.parameters:
        if spec.name in (meta.pk.attname, meta.pk.name):
            if spec.is_list or not spec.required or spec.nullable or spec.pg_type != pg_type:
                return None
            table = f'"{meta.db_table}"'
            key = f'{table}."{meta.pk.column}" = {{key}}::{pg_type} AND {table}.bucket = '
            return RowCheck(
                spec.name, table, key + "{bucket}::integer", version_sql(endpoint.model)
            )
    return None


def check_required(endpoint: Endpoint[Any, Any]) -> None:
    """Refuse a mutation that demands `If-Match` and could not keep it.

    Raises:
        DefinitionError: It does not name one row, or creates many.
    """
    said = endpoint.options
    if said.if_match == "optional":
        return
    where = f"{endpoint.function.__module__}.{endpoint.name}"
    if said.if_match != "required":
        raise DefinitionError(
            "bad-if-match",
            f"has if_match={said.if_match!r}",
            fix='write if_match="required", or drop it',
            where=where,
        )
    if row_check(endpoint) is None or said.many:
        key = endpoint.model._meta.pk.attname
        raise DefinitionError(
            "if-match-without-row",
            f"demands If-Match, but names no one row by a required parameter {key!r} of the "
            "primary key's own type, or creates many",
            fix=f"add the parameter {key!r}, or drop if_match=",
            where=where,
        )


def tag_form(model: Any, columns: Sequence[Column], *, is_whole: bool) -> bytes:
    """Return how the ETag of a read of one row is written, with ``%b`` for the hash.

    Args:
        model: That is read.
        columns: The members of the answered row.
        is_whole: One shard has all of the answer, so its envelope is always the same.
    """
    form = ROW_TAG if tuple(columns) == whole_columns(model) else ANSWER_TAG
    return form if is_whole else b"W/" + form
