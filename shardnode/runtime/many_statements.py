"""The one statement of a batch: may it write in each of these buckets, do it, remember the answer.

    sp_item   the items, from one array per parameter, numbered in their order
    sp_held   the rows of the items' buckets, each at the caller's epoch, share-locked
    sp_own    one row if all of them are ours and the key was not seen before
    sp_row    the author's INSERT of the items, which does nothing without sp_own
    and last  the rows' JSON in the order of the items, stored under the key and returned

Items that give other parameters may need another INSERT (``many.variant_of``); then there are
several, in this same statement. As for single writes, no row comes back if nothing was done.

Invariant: all items and their key are written by one statement, so all are there or none.
"""

from __future__ import annotations

from collections.abc import Sequence

from modeldefs.kit.many import ManyEndpoint
from modeldefs.kit.write_plans import BUCKET_SLOT, ITEM, OWN, PRIMARY_KEY, ROW, BatchInsert
from shardnode.runtime.write_statements import KEEP, UNSEEN

KIND = "sp_kind"  # which of several INSERTs an item takes
ORDER = "sp_ord"

# Each bucket is looked up by itself: joined, Postgres would read all 16384 for ten of them.
_HELD = (
    "sp_held AS MATERIALIZED (SELECT held.bucket"
    " FROM unnest({buckets}::integer[], {epochs}::bigint[]) AS w(bucket, epoch)"
    " CROSS JOIN LATERAL (SELECT b.bucket FROM sp_bucket b WHERE b.bucket = w.bucket"
    " AND b.epoch = w.epoch AND b.state = 'owned' FOR SHARE OF b) AS held)"
)
_OWN_ALL = (
    f"{OWN} AS MATERIALIZED (SELECT FROM (SELECT count(*) AS n FROM sp_held) AS held"  # noqa: S608
    " WHERE held.n = cardinality({buckets}::integer[]){unseen})"
)
# As ``WHY`` of a single write: are all buckets ours, and what is stored under the key.
WHY_MANY = (
    "SELECT (SELECT count(*) FROM unnest($1::integer[], $2::bigint[]) AS w(bucket, epoch)"
    " JOIN sp_bucket b ON b.bucket = w.bucket AND b.epoch = w.epoch AND b.state = 'owned')"
    " = cardinality($1::integer[]), encode(i.fingerprint, 'hex'), i.body"
    " FROM (SELECT 1) AS one"
    " LEFT JOIN sp_idempotency i ON i.bucket = $3::integer AND i.scope = $4::uuid"
)


def many_statement(
    endpoint: ManyEndpoint, inserts: Sequence[BatchInsert], members: Sequence[str], *, keyed: bool
) -> str:
    """Return the statement of a batch.

    Its parameters are one array for each parameter of the endpoint, the items' buckets, where
    there are several inserts the number of each item's, the buckets once and their epochs; with a
    key also the bucket that it is kept with, its scope, its fingerprint and whether it is a hop's.
    """
    columns = [(spec.name, spec.pg_type) for spec in endpoint.parameters]
    columns.append((BUCKET_SLOT, "integer"))
    if len(inserts) > 1:
        columns.append((KIND, "integer"))
    arrays = ", ".join(f"${n}::{pg_type}[]" for n, (_, pg_type) in enumerate(columns, 1))
    names = ", ".join(f'"{name}"' for name, _ in columns)
    buckets, epochs, bucket, scope, fingerprint, hop = (
        f"${len(columns) + n}" for n in range(1, 7)
    )
    unseen = UNSEEN.format(bucket=bucket, scope=scope) if keyed else ""
    items = f"unnest({arrays}) WITH ORDINALITY AS i({names}, {ORDER})"
    ctes = [
        f"{ITEM} AS MATERIALIZED (SELECT * FROM {items})",  # noqa: S608 - our own names
        _HELD.format(buckets=buckets, epochs=epochs),
        _OWN_ALL.format(buckets=buckets, unseen=unseen),
        *_rows(inserts),
    ]
    answer = _answer(inserts[0].key, members)
    if keyed:
        last = KEEP.format(
            bucket=bucket,
            scope=scope,
            fingerprint=fingerprint,
            hop=hop,
            answer=answer,
            found="",
        )
    else:
        last = f"SELECT {answer} FROM {OWN}"  # noqa: S608 - of the same names
    return f"WITH {', '.join(ctes)} {last}"


def _rows(inserts: Sequence[BatchInsert]) -> list[str]:
    if len(inserts) == 1:
        return [f"{ROW} AS ({_insert(inserts[0], '')})"]
    parts = [
        f"{ROW}_{n} AS ({_insert(insert, f' AND {ITEM}.{KIND} = {n}')})"
        for n, insert in enumerate(inserts)
    ]
    every = " UNION ALL ".join(f"SELECT * FROM {ROW}_{n}" for n in range(len(inserts)))  # noqa: S608
    return [*parts, f"{ROW} AS ({every})"]


def _insert(insert: BatchInsert, only: str) -> str:
    return (
        f"{insert.into} SELECT {', '.join(insert.values)} FROM {ITEM}"  # noqa: S608 - a plan's
        f" WHERE EXISTS (SELECT FROM {OWN}){only} RETURNING {insert.returned}"
    )


def _answer(key: str, members: Sequence[str]) -> str:
    """Return the rows as JSON, in the order of the items: a row is found by its primary key."""
    row = ", ".join(f'{ROW}."{name}"' for name in members)
    return (
        f"(SELECT string_agg(row_to_json(sp_one)::text, E'\\n' ORDER BY {ITEM}.{ORDER})"  # noqa: S608
        f' FROM {ITEM} JOIN {ROW} ON {ROW}.{PRIMARY_KEY} = {ITEM}."{key}"'
        f" CROSS JOIN LATERAL (SELECT {row}) AS sp_one)"
    )


def stored_items(endpoint: ManyEndpoint, key: str) -> str:
    """Return the question which items' primary keys are stored: their places, comma-separated."""
    meta = endpoint.model._meta
    (pg_type,) = (spec.pg_type for spec in endpoint.parameters if spec.name == key)
    return (
        f"SELECT string_agg((i.place - 1)::text, ',' ORDER BY i.place)"  # noqa: S608 - our names
        f" FROM unnest($1::{pg_type}[]) WITH ORDINALITY AS i(key, place)"
        f' WHERE EXISTS (SELECT FROM "{meta.db_table}" t WHERE t."{meta.pk.column}" = i.key)'
    )
