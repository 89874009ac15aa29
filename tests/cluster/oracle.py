"""The differential oracle: what one plain Django database answers to the same definitions.

The author's functions are called as ordinary Python with ordinary values against one schema in one
database. Rows become JSON by the rules of the HTTP contract written down again here, by field
class, so that an error in the product's own encoding cannot hide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from django.db import connections, models, router

from engine.databases import PostgresServer
from modeldefs.kit.endpoints import Endpoint

ALIAS = "oracle"


class OracleRouter:
    """Sends every model of the definitions to the oracle's database."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        """Return the oracle for definitions."""
        return ALIAS if hasattr(model, "shard") else None

    db_for_write = db_for_read


@contextmanager
def oracle_database(server: PostgresServer, name: str, catalog: Any) -> Iterator[str]:
    """Make the definitions' tables in one database and route the models there."""
    server.ensure_database(name)
    dsn = server.dsn(name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        version = connection.info.server_version
        provider = "builtin" if version >= 170_000 else "libc"
        connection.execute(f"CREATE COLLATION sp_text (provider = {provider}, locale = 'C.UTF-8')")
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    template = connections.databases["default"]
    connections.databases[ALIAS] = {
        **template,
        "NAME": str(parts["dbname"]),
        "USER": str(parts["user"]),
        "PASSWORD": str(parts["password"]),
        "HOST": str(parts["host"]),
        "PORT": str(parts["port"]),
        "OPTIONS": {},
    }
    before = router.routers
    router.routers = [OracleRouter(), *before]
    try:
        with connections[ALIAS].schema_editor() as editor:
            for model in catalog.in_fk_order():
                editor.create_model(model)
        with psycopg.connect(dsn, autocommit=True) as connection:
            for model in catalog.models.values():
                if not model.shard.reference:
                    table = model._meta.db_table
                    connection.execute(f'ALTER TABLE "{table}" ALTER bucket SET DEFAULT 0')
        yield dsn
    finally:
        router.routers = before
        connections[ALIAS].close()
        del connections.databases[ALIAS]
        server.drop_database(name)


def copy_csv(dsn: str, model: Any, path: Path) -> None:
    """Fill a table of the oracle from a CSV file by Postgres' own COPY."""
    with path.open(encoding="utf-8", newline="") as lines:
        header = lines.readline().strip()
    columns = header.split(",")
    texts = [
        f.column
        for f in model._meta.concrete_fields
        if not f.null and isinstance(f, models.TextField) and f.column in columns
    ]
    forced = f", FORCE_NOT_NULL ({', '.join(texts)})" if texts else ""
    statement = f'COPY "{model._meta.db_table}" ({header}) FROM STDIN (FORMAT csv, HEADER{forced})'
    with psycopg.connect(dsn, autocommit=True) as connection:
        with connection.cursor().copy(statement) as copy, path.open("rb") as file:
            while block := file.read(1 << 20):
                copy.write(block)
        connection.execute(f'ANALYZE "{model._meta.db_table}"')


def wire_value(field: models.Field[Any, Any] | None, value: Any) -> Any:
    """Return a Python value as the HTTP contract writes it."""
    if value is None or isinstance(value, bool | str):
        return value
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    if isinstance(value, int):
        return str(value) if isinstance(field, models.BigIntegerField) else value
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    return value


def _fields(queryset: Any) -> dict[str, Any]:
    query = queryset.query
    found = {f.attname: f for f in query.get_meta().concrete_fields}
    for name, annotation in query.annotations.items():
        found[name] = annotation.output_field
        if isinstance(annotation, models.Count | models.Sum):
            found[name] = models.IntegerField()
            if isinstance(annotation, models.Sum) and isinstance(
                annotation.get_source_expressions()[0].output_field, models.BigIntegerField
            ):
                found[name] = models.BigIntegerField()
    return found


def _rows(queryset: Any) -> list[dict[str, Any]]:
    fields = _fields(queryset)
    rows = []
    for row in queryset:
        if not isinstance(row, dict):
            names = [f.attname for f in row._meta.concrete_fields if f.attname != "bucket"]
            names += list(queryset.query.annotation_select)
            row = {name: getattr(row, name) for name in names}
        rows.append({name: wire_value(fields.get(name), value) for name, value in row.items()})
    return rows


def answer(endpoint: Endpoint[Any, Any], arguments: dict[str, Any]) -> Any:
    """Return all rows of a page in order, or the value of any other read."""
    given = {spec.name: None for spec in endpoint.parameters if not spec.required}
    for spec in endpoint.parameters:
        if spec.default is not None:
            del given[spec.name]
    result: Any = endpoint.function(**{**given, **arguments})
    if endpoint.shape == "page":
        order = list(endpoint.options.order)
        pk = result.model._meta.pk.attname
        if pk not in [name.lstrip("-") for name in order]:
            down = bool(order) and all(name.startswith("-") for name in order)
            order.append(f"-{pk}" if down else pk)
        return _rows(result.order_by(*order))
    if endpoint.shape == "single":
        if result is None:
            return None
        return {
            f.attname: wire_value(f, getattr(result, f.attname))
            for f in result._meta.concrete_fields
            if f.attname != "bucket"
        }
    if endpoint.shape == "groups":
        return _grouped(endpoint, result)
    values = {name: wire_value(None, value) for name, value in result.items()}
    return next(iter(values.values())) if endpoint.is_scalar else values


def _grouped(endpoint: Endpoint[Any, Any], queryset: Any) -> list[dict[str, Any]]:
    rows = _rows(queryset.order_by())
    aggregates = [n for n, a in queryset.query.annotation_select.items() if a.contains_aggregate]
    groups = [name for name in (rows[0] if rows else {}) if name not in aggregates]
    for name in reversed(groups):
        rows = _sorted(rows, name, descending=False)
    for name in reversed(endpoint.options.order):
        rows = _sorted(rows, name.lstrip("-"), descending=name.startswith("-"))
    return rows


def _sorted(rows: list[dict[str, Any]], name: str, *, descending: bool) -> list[dict[str, Any]]:
    present = [row for row in rows if row[name] is not None]
    absent = [row for row in rows if row[name] is None]
    return [*sorted(present, key=lambda row: row[name], reverse=descending), *absent]


def same(expected: Any, actual: Any) -> bool:
    """Are two answers equal: in value, type and order?

    A mean may differ in the last digits, because Postgres' own avg() rounds to 16 of them.
    """
    if isinstance(expected, float) and isinstance(actual, float | int):
        return math.isclose(expected, actual, rel_tol=1e-13, abs_tol=1e-15)
    if type(expected) is not type(actual):
        return False
    if isinstance(expected, dict):
        return list(expected) == list(actual) and all(
            same(expected[name], actual[name]) for name in expected
        )
    if isinstance(expected, list):
        return len(expected) == len(actual) and all(
            same(a, b) for a, b in zip(expected, actual, strict=True)
        )
    return bool(expected == actual)
