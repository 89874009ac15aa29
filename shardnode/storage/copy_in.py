"""Rows into a shard, by numbered parts of a load.

Invariant: a part is applied whole and once, or not at all. Its number is written in the same
transaction as its rows, so a part that is sent again, even at the same moment, is answered from
what the first one did. No row is taken for a bucket that this shard does not own, and the map
cannot change under a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psycopg
from psycopg import sql

from modeldefs.wire.problems import InputError, InvalidRequest, WrongShard
from shardnode.storage.bad_records import (
    BadRecord,
    find_bad_records,
    is_about_records,
    reason_of,
)
from shardnode.storage.expectations import BUCKET_COLUMN, Model, is_reference
from shardnode.storage.meta import hold_map, not_owned
from shardnode.storage.records import first_values, split_records
from shardnode.storage.row_security import policy_names

OnConflict = Literal["error", "skip", "update"]
ON_CONFLICT = ("error", "skip", "update")
BUCKETS_NAMED_MAX = 20
PART_STATEMENT_TIMEOUT_MS = 120_000
COPY_OPTIONS = "(FORMAT csv, ENCODING 'UTF8')"

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class LoadPart:
    """One part of a load; ``columns`` name the values after the bucket."""

    model: Model
    load_id: str
    part: int
    columns: tuple[str, ...]
    on_conflict: OnConflict
    body: bytes


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a part did: records inserted, skipped and updated add up to its records."""

    rows: int
    skipped: int = 0
    updated: int = 0
    replayed: bool = False

    def document(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self)


def load_part(connection: Connection, part: LoadPart) -> LoadResult:
    """Apply one part of a load, once.

    Raises:
        InvalidRequest: Some records cannot be stored; ``errors`` names each with its number.
        WrongShard: A bucket of the part is not owned here.
    """
    columns = column_list(part)
    records = _records(part)
    if not records:
        return LoadResult(rows=0)
    try:
        with connection.transaction():
            _prepare(connection)
            known = _claim(connection, part)
            if known is not None:
                return known
            if not is_reference(part.model):
                _check_buckets(connection, records)
            result = _write(connection, part, columns, records)
            connection.execute(
                "UPDATE sp_load SET rows = %s, skipped = %s, updated = %s"
                " WHERE load_id = %s AND part = %s",
                (result.rows, result.skipped, result.updated, part.load_id, part.part),
            )
            return result
    except psycopg.Error as refusal:
        if not is_about_records(refusal):
            raise
        first = refusal
    raise _invalid(connection, part, columns, records, first)


def column_list(part: LoadPart) -> list[str]:
    """Return the columns of the body in order, the bucket first for a document.

    Raises:
        InvalidRequest: A column is unknown, given twice, or the bucket itself.
    """
    known = {str(field.column) for field in part.model._meta.local_concrete_fields}
    faults = [
        InputError(code="unknown-parameter", detail=f"no column {name}", parameter="columns")
        for name in part.columns
        if name not in known or name == BUCKET_COLUMN
    ]
    if len(set(part.columns)) != len(part.columns):
        faults.append(
            InputError(code="duplicate", detail="a column came twice", parameter="columns")
        )
    if str(part.model._meta.pk.column) not in part.columns:
        faults.append(
            InputError(
                code="missing", detail="the primary key is not among them", parameter="columns"
            )
        )
    if faults:
        raise InvalidRequest(errors=faults)
    return [*part.columns] if is_reference(part.model) else [BUCKET_COLUMN, *part.columns]


def _records(part: LoadPart) -> list[bytes]:
    try:
        part.body.decode("utf-8")
    except UnicodeDecodeError as fault:
        number = len(split_records(part.body[: fault.start] + b"?"))
        raise bad_records_problem(
            [BadRecord(number, "bad-utf8", "the text is not UTF-8")], more=False
        ) from None
    return split_records(part.body)


def _prepare(connection: Connection) -> None:
    connection.execute(f"SET LOCAL statement_timeout = {PART_STATEMENT_TIMEOUT_MS}")
    # Foreign keys are checked where the error can still be explained, not at the commit.
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    connection.execute("SELECT set_config('sp.load', 'on', true)")
    hold_map(connection)


def _claim(connection: Connection, part: LoadPart) -> LoadResult | None:
    """Claim the part's number; return what an earlier run of the same part did."""
    claimed = connection.execute(
        "INSERT INTO sp_load (load_id, part) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (part.load_id, part.part),
    )
    if claimed.rowcount:
        return None
    row = connection.execute(
        "SELECT rows, skipped, updated FROM sp_load WHERE load_id = %s AND part = %s",
        (part.load_id, part.part),
    ).fetchone()
    assert row is not None
    return LoadResult(int(row[0]), int(row[1]), int(row[2]), replayed=True)


def _check_buckets(connection: Connection, records: Sequence[bytes]) -> None:
    named = set(first_values(records))
    buckets = [int(text) for text in named if text.isdigit() and len(text) <= 5]
    foreign = not_owned(connection, buckets)
    if foreign:
        raise WrongShard(
            f"{len(foreign)} buckets of this part are not owned here",
            members={"buckets": foreign[:BUCKETS_NAMED_MAX]},
        )


def _write(
    connection: Connection, part: LoadPart, columns: Sequence[str], records: Sequence[bytes]
) -> LoadResult:
    table = sql.Identifier(part.model._meta.db_table)
    if not _is_staged(part):
        copy_records(connection, table, columns, records)
        return LoadResult(rows=len(records))
    stage = sql.Identifier("pg_temp", "sp_stage")
    names = _names(columns)
    connection.execute(
        sql.SQL(
            "CREATE TEMP TABLE sp_stage ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA"
        ).format(names, table)
    )
    connection.execute(
        "ALTER TABLE pg_temp.sp_stage ADD COLUMN sp_place bigint GENERATED ALWAYS AS IDENTITY"
    )
    copy_records(connection, stage, columns, records)
    if part.on_conflict == "error":
        connection.execute(_plain(columns, table))
        return LoadResult(rows=len(records))
    insert = (
        _upsert(part, columns, table) if part.on_conflict == "update" else _skip(columns, table)
    )
    row = connection.execute(insert).fetchone()
    assert row is not None
    fresh = int(row[0])
    if part.on_conflict == "skip":
        return LoadResult(rows=fresh, skipped=len(records) - fresh)
    return LoadResult(rows=fresh, updated=len(records) - fresh)


def _is_staged(part: LoadPart) -> bool:
    # Postgres refuses COPY into a table with row level security, whatever its policies say.
    return part.on_conflict != "error" or bool(policy_names(part.model))


def copy_records(
    connection: Connection,
    table: sql.Identifier,
    columns: Sequence[str],
    records: Sequence[bytes],
) -> None:
    """Send records through COPY."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN " + COPY_OPTIONS).format(table, _names(columns))
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(b"".join(records))


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in columns)


def _plain(columns: Sequence[str], table: sql.Identifier) -> sql.Composed:
    return sql.SQL(
        "INSERT INTO {table} ({names}) SELECT {names} FROM pg_temp.sp_stage ORDER BY sp_place"
    ).format(table=table, names=_names(columns))


def _skip(columns: Sequence[str], table: sql.Identifier) -> sql.Composed:
    return sql.SQL(
        "WITH done AS (INSERT INTO {table} ({names}) SELECT {names} FROM pg_temp.sp_stage"
        " ORDER BY sp_place ON CONFLICT DO NOTHING RETURNING 1)"
        " SELECT count(*) FROM done"
    ).format(table=table, names=_names(columns))


def _upsert(part: LoadPart, columns: Sequence[str], table: sql.Identifier) -> sql.Composed:
    pk = sql.Identifier(str(part.model._meta.pk.column))
    others = [name for name in columns if name != part.model._meta.pk.column]
    action: sql.Composable = sql.SQL("NOTHING")
    if others:
        action = sql.SQL("UPDATE SET ") + sql.SQL(", ").join(
            sql.SQL("{name} = excluded.{name}").format(name=sql.Identifier(name))
            for name in others
        )
    # Of records with one key in the same part the last one counts, as if sent one by one.
    return sql.SQL(
        "WITH done AS (INSERT INTO {table} ({names}) SELECT DISTINCT ON ({pk}) {names}"
        " FROM pg_temp.sp_stage ORDER BY {pk}, sp_place DESC ON CONFLICT ({pk}) DO {action}"
        " RETURNING (xmax = 0) AS fresh)"
        " SELECT count(*) FILTER (WHERE fresh) FROM done"
    ).format(table=table, names=_names(columns), pk=pk, action=action)


def _invalid(
    connection: Connection,
    part: LoadPart,
    columns: Sequence[str],
    records: Sequence[bytes],
    first: psycopg.Error,
) -> InvalidRequest:
    """Return the problem that names every bad record of a refused part."""
    scratch = LoadPart(part.model, part.load_id, part.part, part.columns, part.on_conflict, b"")

    def attempt(some: Sequence[bytes]) -> None:
        if _is_staged(part):
            connection.execute("DROP TABLE IF EXISTS pg_temp.sp_stage")
        _write(connection, scratch, columns, some)

    with connection.transaction(force_rollback=True):
        _prepare(connection)
        bad, more = find_bad_records(connection, records, attempt)
    if not bad:
        # Nothing is wrong with any record alone: together they break a rule of the whole.
        code, detail = reason_of(first)
        bad = [BadRecord(0, code, detail)]
    return bad_records_problem(bad, more=more)


def bad_records_problem(bad: Sequence[BadRecord], *, more: bool) -> InvalidRequest:
    """Return the refusal of a part: record numbers count from 1 within its body."""
    return InvalidRequest(
        "some records cannot be stored; nothing of this part was",
        errors=[
            InputError(code=each.code, detail=each.detail, pointer=f"/{each.number}")
            for each in bad
        ],
        members={"more": more},
    )
