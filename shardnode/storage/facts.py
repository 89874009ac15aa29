"""What Postgres says a shard's tables are: columns, indexes, constraints, triggers.

Facts come from pg_catalog alone and are read in one statement each; nothing is inferred from the
definitions, so facts and definitions can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg


@dataclass(frozen=True, slots=True)
class ColumnFact:
    """One column as Postgres has it; ``collation`` is None for the type's own."""

    name: str
    type: str
    nullable: bool
    collation: str | None


@dataclass(slots=True)
class TableFacts:
    """One table as Postgres has it."""

    relation: str
    rows_estimate: int = 0
    columns: dict[str, ColumnFact] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)
    invalid_indexes: set[str] = field(default_factory=set)
    unique: set[tuple[str, ...]] = field(default_factory=set)
    foreign_keys: set[tuple[tuple[str, ...], str]] = field(default_factory=set)
    constraints: dict[str, str] = field(default_factory=dict)
    triggers: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)  # empty where row security is not forced


_TABLES = """
SELECT c.relname, greatest(c.reltuples, 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND c.relname NOT LIKE 'sp\\_%%'
ORDER BY c.relname
"""
_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
       CASE WHEN a.attcollation <> t.typcollation THEN o.collname END
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_collation o ON o.oid = a.attcollation
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND a.attnum > 0
  AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""
_INDEXES = """
SELECT c.relname, i.relname, pg_get_indexdef(x.indexrelid), x.indisvalid,
       x.indisunique AND x.indpred IS NULL AND x.indexprs IS NULL,
       (SELECT array_agg(a.attname::text ORDER BY k.ord)
        FROM unnest(x.indkey::int[]) WITH ORDINALITY AS k(num, ord)
        JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.num)
FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s
ORDER BY c.relname, i.relname
"""
_CONSTRAINTS = """
SELECT c.relname, k.conname, pg_get_constraintdef(k.oid), k.contype::text, f.relname,
       (SELECT array_agg(a.attname::text ORDER BY u.ord)
        FROM unnest(k.conkey) WITH ORDINALITY AS u(num, ord)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class f ON f.oid = k.confrelid
WHERE n.nspname = %(schema)s AND k.contype IN ('c', 'f', 'p', 'u', 'x')
ORDER BY c.relname, k.conname
"""
_TRIGGERS = """
SELECT c.relname, t.tgname
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND NOT t.tgisinternal
"""
_POLICIES = """
SELECT c.relname, p.polname
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relrowsecurity AND c.relforcerowsecurity
"""


def read_table_facts(connection: psycopg.Connection[Any], *, schema: str) -> dict[str, TableFacts]:
    """Return every table of the schema that holds rows of a model, by relation name."""
    with connection.transaction(), connection.cursor() as cursor:
        where = {"schema": schema}
        cursor.execute(_TABLES, where)
        facts = {name: TableFacts(name, rows) for name, rows in cursor.fetchall()}
        cursor.execute(_COLUMNS, where)
        for relation, name, kind, nullable, collation in cursor.fetchall():
            if relation in facts:
                facts[relation].columns[name] = ColumnFact(name, kind, nullable, collation)
        cursor.execute(_INDEXES, where)
        for relation, name, text, valid, unique, columns in cursor.fetchall():
            if relation in facts:
                _add_index(facts[relation], name, text, valid, tuple(columns) if unique else ())
        cursor.execute(_CONSTRAINTS, where)
        for relation, name, text, kind, target, columns in cursor.fetchall():
            if relation in facts:
                facts[relation].constraints[name] = text
                if kind == "f":
                    facts[relation].foreign_keys.add((tuple(columns), target))
        cursor.execute(_TRIGGERS, where)
        for relation, name in cursor.fetchall():
            if relation in facts:
                facts[relation].triggers.add(name)
        cursor.execute(_POLICIES, where)
        for relation, name in cursor.fetchall():
            if relation in facts:
                facts[relation].policies.add(name)
    return facts


def _add_index(
    table: TableFacts, name: str, text: str, valid: bool, unique: tuple[str, ...]
) -> None:
    if not valid:
        table.invalid_indexes.add(name)
        return
    table.indexes[name] = text
    if unique:
        table.unique.add(unique)
