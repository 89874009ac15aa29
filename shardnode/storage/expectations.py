"""What the definitions say a shard's tables are, in Postgres's own words.

Types, index names and constraint names are asked of Django's schema editor for this very server,
so that facts and expectations agree without a second list of types.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import psycopg
from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg import sql

from shardnode.storage.changes import ExpectedColumn, ExpectedTable
from shardnode.storage.row_security import policy_names

BUCKET_COLUMN = "bucket"
GUARD_TRIGGERS = ("sp_guard_delete", "sp_guard_key", "sp_guard_row", "sp_guard_truncate")
REFERENCE_TRIGGERS = ("sp_guard_reference", "sp_guard_truncate")
_NAME_BYTES_MAX = 63

Model = type[models.Model]


def is_reference(model: Model) -> bool:
    """Return whether the model is copied to every shard."""
    return bool(cast(Any, model).shard.reference)


def shard_key_column(model: Model) -> str | None:
    """Return the column whose value places a row; None for a reference model."""
    key = cast(Any, model).shard.key
    if key is None or is_reference(model):
        return None
    for found in model._meta.concrete_fields:
        if key in (found.attname, found.name):
            return str(found.column)
    raise LookupError(f"{model.__name__}: its shard key {key!r} is not a field")


def bucket_index_name(model: Model) -> str:
    """Return the name of the unique index on bucket and primary key."""
    return f"{model._meta.db_table}"[: _NAME_BYTES_MAX - len("_sp_bucket_pk")] + "_sp_bucket_pk"


def index_statements(model: Model, editor: BaseDatabaseSchemaEditor) -> dict[str, str]:
    """Return the model's indexes by name: the statement that creates each."""
    statements = {}
    for statement in cast(Any, editor)._model_indexes_sql(model):
        text = str(statement)
        found = re.match(r'CREATE INDEX (?:CONCURRENTLY )?"([^"]+)"', text)
        if found:
            statements[found.group(1)] = text
    if not is_reference(model):
        name, pk = bucket_index_name(model), str(model._meta.pk.column)
        statements[name] = (
            f"CREATE UNIQUE INDEX {editor.quote_name(name)} ON"
            f" {editor.quote_name(model._meta.db_table)}"
            f" ({editor.quote_name(BUCKET_COLUMN)}, {editor.quote_name(pk)})"
        )
    return statements


def expected_tables(
    models_in_order: Sequence[Model], wrapper: DatabaseWrapper, editor: BaseDatabaseSchemaEditor
) -> list[ExpectedTable]:
    """Return what every model's table should be on this server."""
    kinds = {
        str(found.db_parameters(wrapper)["type"])
        for model in models_in_order
        for found in model._meta.local_concrete_fields
    }
    postgres_names = _names_of_types(wrapper.connection, sorted(kinds))
    return [_expected(model, wrapper, editor, postgres_names) for model in models_in_order]


def _expected(
    model: Model,
    wrapper: DatabaseWrapper,
    editor: BaseDatabaseSchemaEditor,
    postgres_names: dict[str, str],
) -> ExpectedTable:
    meta = model._meta
    columns = []
    for found in meta.local_concrete_fields:
        parameters = cast(dict[str, Any], found.db_parameters(wrapper))
        columns.append(
            ExpectedColumn(
                name=str(found.column),
                type=postgres_names[str(parameters["type"])],
                nullable=found.null and not found.primary_key,
                collation=parameters.get("collation") or None,
                addable=found.null or found.has_default() or cast(Any, found).has_db_default(),
            )
        )
    reference = is_reference(model)
    return ExpectedTable(
        model=model.__name__,
        relation=meta.db_table,
        columns=tuple(columns),
        indexes=tuple(index_statements(model, editor)),
        unique=_unique(model),
        foreign_keys=_foreign_keys(model),
        constraints=frozenset(
            constraint.name
            for constraint in meta.constraints
            if not isinstance(constraint, models.UniqueConstraint) or constraint.condition
        ),
        triggers=REFERENCE_TRIGGERS if reference else GUARD_TRIGGERS,
        shard_key=shard_key_column(model),
        reference=reference,
        policies=policy_names(model),
    )


def _unique(model: Model) -> frozenset[tuple[str, ...]]:
    meta = model._meta

    def columns(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(str(cast(Any, meta.get_field(name)).column) for name in names)

    found: set[tuple[str, ...]] = {
        (str(each.column),) for each in meta.local_concrete_fields if each.unique
    }
    found.update(columns(names) for names in meta.unique_together)
    found.update(
        columns(constraint.fields)
        for constraint in meta.constraints
        if isinstance(constraint, models.UniqueConstraint)
        and constraint.fields
        and not constraint.condition
    )
    return frozenset(found)


def _foreign_keys(model: Model) -> frozenset[tuple[tuple[str, ...], str]]:
    return frozenset(
        ((str(found.column),), str(found.related_model._meta.db_table))
        for found in model._meta.local_concrete_fields
        if isinstance(found, models.ForeignKey)
        and cast(Any, found).db_constraint
        and not isinstance(found.related_model, str)
    )


def _names_of_types(connection: psycopg.Connection[Any], kinds: Sequence[str]) -> dict[str, str]:
    """Return Postgres's own spelling of each type: varchar(20) is character varying(20)."""
    if not kinds:
        return {}
    with psycopg.Cursor(connection) as cursor:
        # The kinds are Django's, not a user's text; Postgres resolves them in a cast of NULL.
        cursor.execute(sql.SQL("SELECT " + ", ".join(f"NULL::{kind}" for kind in kinds)))
        result = cursor.pgresult
        assert result is not None
        pairs = [(result.ftype(place), result.fmod(place)) for place in range(len(kinds))]
        cursor.execute(
            "SELECT format_type(t.kind, t.modifier)"
            " FROM unnest(%s::oid[], %s::int[]) WITH ORDINALITY AS t(kind, modifier, place)"
            " ORDER BY t.place",
            ([kind for kind, _ in pairs], [modifier for _, modifier in pairs]),
        )
        return dict(zip(kinds, (str(row[0]) for row in cursor.fetchall()), strict=True))
