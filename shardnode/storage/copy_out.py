"""Rows out of a shard: pages in the order of the primary key, and exact counts.

A page begins after a primary key and never skips a row that existed before and after it; the
lines are those that ``copy_in`` takes. Read with the login that cannot write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from modeldefs.wire.problems import InputError, InvalidRequest
from shardnode.storage.expectations import BUCKET_COLUMN, Model, is_reference
from shardnode.storage.records import values_of

PAGE_ROWS_MAX = 50_000
PAGE_BYTES_MAX = 32 * 1024 * 1024
STATEMENT_TIMEOUT_MS = 120_000

Connection = psycopg.Connection[Any]
BucketRanges = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class RowPage:
    """Records of one page; ``next`` is the last primary key, None when there are no more."""

    columns: tuple[str, ...]
    body: bytes
    rows: int
    next: str | None


def dump_columns(model: Model) -> list[str]:
    """Return a model's columns in the order of its records, the bucket first for a document."""
    columns = [str(field.column) for field in model._meta.local_concrete_fields]
    if is_reference(model):
        return columns
    return [BUCKET_COLUMN, *(name for name in columns if name != BUCKET_COLUMN)]


def read_page(
    connection: Connection,
    model: Model,
    *,
    ranges: BucketRanges | None,
    after: str | None,
    limit: int = PAGE_ROWS_MAX,
) -> RowPage:
    """Return the rows of some bucket ranges after a primary key.

    Raises:
        InvalidRequest: ``after`` is no value of the primary key.
    """
    limit = min(limit, PAGE_ROWS_MAX)
    columns = dump_columns(model)
    pk = str(model._meta.pk.column)
    statement = sql.SQL(
        "COPY (SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT {}) TO STDOUT {}"
    ).format(
        sql.SQL(", ").join(sql.Identifier(name) for name in columns),
        sql.Identifier(model._meta.db_table),
        _condition(connection, model, ranges, after),
        sql.Identifier(pk),
        # One more than asked for tells whether there is a next page.
        sql.Literal(limit + 1),
        sql.SQL("(FORMAT csv, ENCODING 'UTF8')"),
    )
    records: list[bytes] = []
    size = 0
    cut = False
    try:
        with connection.transaction(force_rollback=True), connection.cursor() as cursor:
            _portable_text(connection)
            with cursor.copy(statement) as copy:
                for record in copy:
                    # Read to its end: breaking off a COPY means a cancel request per page.
                    cut = cut or len(records) == limit or size + len(record) > PAGE_BYTES_MAX
                    if not cut or not records:
                        records.append(bytes(record))
                        size += len(record)
    except psycopg.errors.DataError as fault:
        if after is None:
            raise
        raise _bad_after(fault) from None
    following = values_of(records[-1])[columns.index(pk)] if cut else None
    return RowPage(tuple(columns), b"".join(records), len(records), following)


def count_rows(
    connection: Connection, model: Model, *, ranges: BucketRanges
) -> tuple[int, dict[str, int]]:
    """Return how many rows a model has, and how many in each bucket range."""
    table = sql.Identifier(model._meta.db_table)
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
        if is_reference(model) or not ranges:
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table)).fetchone()
            return (int(row[0]) if row else 0), {}
        counts = sql.SQL(", ").join(
            sql.SQL("count(*) FILTER (WHERE bucket BETWEEN {} AND {})").format(
                sql.Literal(first), sql.Literal(last)
            )
            for first, last in ranges
        )
        row = connection.execute(
            sql.SQL("SELECT count(*), {} FROM {}").format(counts, table)
        ).fetchone()
    assert row is not None
    names = [f"{first}-{last}" for first, last in ranges]
    return int(row[0]), dict(zip(names, (int(each) for each in row[1:]), strict=True))


def delete_rows(connection: Connection, model: Model, *, ranges: BucketRanges) -> int:
    """Delete a document's rows of some bucket ranges; return how many there were."""
    if is_reference(model):
        raise InvalidRequest(
            errors=[
                InputError(
                    code="wrong-type", detail="a reference model has no buckets", pointer="/ranges"
                )
            ]
        )
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
        connection.execute("SELECT set_config('sp.load', 'on', true)")
        done = connection.execute(
            sql.SQL("DELETE FROM {} WHERE {}").format(
                sql.Identifier(model._meta.db_table), _in_ranges(ranges)
            )
        )
    return done.rowcount


def _portable_text(connection: Connection) -> None:
    """Give every type one text form, whatever the server's defaults are."""
    connection.execute(
        "SELECT set_config('statement_timeout', %s, true), set_config('timezone', 'UTC', true),"
        " set_config('datestyle', 'ISO, YMD', true), set_config('bytea_output', 'hex', true),"
        " set_config('intervalstyle', 'iso_8601', true)",
        (str(STATEMENT_TIMEOUT_MS),),
    )


def _condition(
    connection: Connection, model: Model, ranges: BucketRanges | None, after: str | None
) -> sql.Composable:
    conditions: list[sql.Composable] = []
    if ranges is not None and not is_reference(model):
        conditions.append(_in_ranges(ranges))
    if after is not None:
        column = str(model._meta.pk.column)
        row = connection.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attname = %s",
            (sql.Identifier(model._meta.db_table).as_string(connection), column),
        ).fetchone()
        assert row is not None
        conditions.append(
            sql.SQL("{} > CAST({} AS {})").format(
                sql.Identifier(column), sql.Literal(after), sql.SQL(row[0])
            )
        )
    return sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true")


def _in_ranges(ranges: BucketRanges) -> sql.Composable:
    if not ranges:
        return sql.SQL("false")
    some = sql.SQL(" OR ").join(
        sql.SQL("bucket BETWEEN {} AND {}").format(sql.Literal(first), sql.Literal(last))
        for first, last in ranges
    )
    return sql.SQL("({})").format(some)


def _bad_after(fault: psycopg.Error) -> InvalidRequest:
    return InvalidRequest(
        errors=[
            InputError(
                code="wrong-type", detail=fault.diag.message_primary or "", parameter="after"
            )
        ]
    )
