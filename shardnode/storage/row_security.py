"""Row level security: the second wall around the rows of callers with a row filter.

They are served by logins of their own, ``frw`` and ``fro``, for which each table has one policy:
a row is there if it has the values that the transaction's settings name. Nothing is there while
they are unset, so what forgets to set them shows nothing. For every other login a policy that is
always true stands beside it, which Postgres' planner drops: an ordinary read pays nothing.

    sp.filter         the fields of the caller's filter, ``country,tenant``
    sp.filter_FIELD   the value of each

Invariant: a policy's name holds a hash of its text, so a table whose policies have the expected
names has the expected policies; a table without a policy is not granted to ``frw`` and ``fro``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import models
from psycopg import sql

from modeldefs.kit.row_filters import filter_column
from shardnode.storage.naming import OWN_PREFIX, ShardNames

FIELDS_SETTING = "sp.filter"
VALUE_SETTING = "sp.filter_{0}"
EVERYTHING = "sp_everything"

Model = type[models.Model]

# As subqueries these are looked up once for a statement, not once for each row.
_FIELDS = "string_to_array(nullif(current_setting('sp.filter', true), ''), ',')"
_VALUE = "(SELECT nullif(current_setting({setting}, true), '')::{kind})"


def settings_statement(fields: Sequence[str], *, placeholder: str = "${0}") -> str:
    """Return the statement that names a transaction's row filter: its fields, then each value.

    Always local: what is set for a session leaks to the next caller of a pooled connection.

    Args:
        fields: All filter fields that the definitions declare; those of others are unset.
        placeholder: What stands for a parameter, by its number.
    """
    names = [FIELDS_SETTING, *(VALUE_SETTING.format(field) for field in fields)]
    parts = [
        f"set_config('{name}', {placeholder.format(n)}, true)" for n, name in enumerate(names, 1)
    ]
    return f"SELECT {', '.join(parts)}"


def settings_values(fields: Sequence[str], row_filter: Mapping[str, str] | None) -> list[str]:
    """Return the values of that statement's parameters; without a filter all of them unset."""
    given = row_filter or {}
    return [",".join(sorted(given)), *(given.get(field, "") for field in fields)]


def policy_names(model: Model) -> tuple[str, ...]:
    """Return the names of a model's policies; none where no filtered caller may read it."""
    own = _own_policy(model)
    return (EVERYTHING, own[0]) if own is not None else ()


def security_statements(model: Model, names: ShardNames) -> Iterator[sql.Composed]:
    """Yield the statements that bring a table's policies to the definitions, whatever it has."""
    values = {
        "table": sql.Identifier(names.schema, model._meta.db_table),
        "schema": sql.Literal(names.schema),
        "relation": sql.Literal(model._meta.db_table),
        "filtered": sql.SQL(", ").join(map(sql.Identifier, (names.frw, names.fro))),
        "others": sql.SQL(", ").join(map(sql.Identifier, (names.owner, names.rw, names.ro))),
        "frw": sql.Identifier(names.frw),
        "everything": sql.Identifier(EVERYTHING),
    }

    def made(text: str, **more: Any) -> sql.Composed:
        return sql.SQL(text).format(**values, **more)

    yield made(_DROP)
    yield made("REVOKE ALL ON {table} FROM {filtered}")
    own = _own_policy(model)
    if own is None:
        yield made("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        yield made("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        return
    name, condition = own
    yield made("CREATE POLICY {everything} ON {table} TO {others} USING (true) WITH CHECK (true)")
    yield made(
        "CREATE POLICY {name} ON {table} TO {filtered} USING ({condition}) "
        "WITH CHECK ({condition})",
        name=sql.Identifier(name),
        condition=sql.SQL(condition),
    )
    yield made("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    yield made("ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    yield made("GRANT SELECT ON {table} TO {filtered}")
    if not _is_shared(model):
        yield made("GRANT INSERT, UPDATE, DELETE ON {table} TO {frw}")


_DROP = """
DO $$ DECLARE found record; BEGIN
    FOR found IN SELECT p.polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = {schema} AND c.relname = {relation} AND p.polname LIKE 'sp\\_%'
    LOOP
        EXECUTE format('DROP POLICY %I ON %I.%I', found.polname, {schema}, {relation});
    END LOOP;
END $$
"""


def _is_shared(model: Any) -> bool:
    return bool(model.shard.shared)


def _own_policy(model: Any) -> tuple[str, str] | None:
    """Return the name and the condition of what filtered callers see; None if that is nothing."""
    if _is_shared(model):
        condition = "true"
    elif model.shard.filter:
        condition = _condition(model)
    else:
        return None
    digest = hashlib.sha256(condition.encode()).hexdigest()[:12]
    return f"{OWN_PREFIX}filter_{digest}", condition


def _condition(model: Any) -> str:
    fields = model.shard.filter
    listed = ", ".join(f"'{field}'" for field in fields)
    # A caller whose filter is on a field that the model lacks sees none of its rows.
    parts = [f"(SELECT {_FIELDS} <@ ARRAY[{listed}]::text[])"]
    for field in fields:
        column = filter_column(model, field)
        value = _VALUE.format(setting=f"'{VALUE_SETTING.format(field)}'", kind=column.pg_type)
        equal = f"{column.column} = {value}"
        if len(fields) > 1:
            equal = f"((SELECT '{field}' <> ALL({_FIELDS})) OR {equal})"
        parts.append(equal)
    return " AND ".join(parts)
