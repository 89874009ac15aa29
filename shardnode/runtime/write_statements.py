"""The one statement of a traced write: may it write here, do it, remember what was answered.

    sp_own    the bucket's row at the caller's epoch, share-locked; empty if the bucket is not
              ours, or if the key was seen before. Under a condition (``If-Match``) that is
              sp_place, and sp_own the row that the condition is about, locked; empty too if the
              condition does not hold
    sp_row    the author's INSERT, UPDATE or DELETE, which reads sp_own and so does nothing
              without it
    and last  the answer, stored under the key and returned

One row comes back: the answer, as JSON built by Postgres. None comes back if nothing was done; why
is a second question (`WHY`), which only those ask who got no answer.

``sp_own`` also sets ``sp.bucket``, by which the guard triggers tell a row of this bucket from one
that a mutation should not touch. They look at it when a row is written, and the row waits for
sp_own, so it is set before, also where the statement ahead in the same transaction set another.

Invariant: the row and its key are written by one statement, so both are there or neither.
"""

from __future__ import annotations

from dataclasses import dataclass

from modeldefs.kit.row_filters import FILTER_PREFIX, FilterColumn
from modeldefs.kit.row_versions import RowCheck
from modeldefs.kit.write_plans import BUCKET_SLOT, OWN, ROW, WritePlan
from modeldefs.wire import calls

VERSIONS_SLOT = "sp_versions"
PLACE = "sp_place"  # in place of OWN where that looks at the row as well
EPOCH_SLOT = "sp_epoch"
SCOPE_SLOT = "sp_scope"
FINGERPRINT_SLOT = "sp_fingerprint"
HOP_SLOT = "sp_hop"

_PLACE_ROW = (
    "{name} AS MATERIALIZED ("
    "SELECT set_config('sp.bucket', b.bucket::text, true) FROM sp_bucket b"
    " WHERE b.bucket = {bucket}::integer AND b.epoch = {epoch}::bigint AND b.state = 'owned'"
    "{unseen} FOR SHARE OF b)"
)
UNSEEN = (
    " AND NOT EXISTS (SELECT FROM sp_idempotency i"
    " WHERE i.bucket = {bucket}::integer AND i.scope = {scope}::uuid)"
)
KEEP = (
    "INSERT INTO sp_idempotency (bucket, scope, fingerprint, hop, body)"  # noqa: S608
    " SELECT {bucket}::integer, {scope}::uuid, {fingerprint}::bytea, {hop}::boolean, {answer}"
    f" FROM {OWN}{{found}} RETURNING body"
)

# Columns of the row that says why nothing was done: is the bucket ours, and what is stored under
# the key, if anything.
WHY = (
    "SELECT EXISTS (SELECT FROM sp_bucket b WHERE b.bucket = $1::integer"
    " AND b.epoch = $2::bigint AND b.state = 'owned'), encode(i.fingerprint, 'hex'), i.body"
    " FROM (SELECT 1) AS one"
    " LEFT JOIN sp_idempotency i ON i.bucket = $1::integer AND i.scope = $3::uuid"
)


# Whether a conditional write may be done: of the row of its primary key, which it holds on to.
_HELD = "({versions}::text[] IS NULL OR {version} = ANY({versions}::text[]))"
_THE_ROW = "SELECT 1 FROM {table} WHERE {key} AND " + _HELD  # noqa: S608 - our own names
_ABSENT = "NOT EXISTS (SELECT FROM {table} WHERE {key})"


@dataclass(frozen=True, slots=True)
class WriteStatement:
    """A write plan's full statement, and what fills its parameters."""

    sql: str
    slots: tuple[str, ...]


class _Places:
    """The parameters of a statement by name: those of the plan first, each once."""

    def __init__(self, slots: tuple[str, ...]) -> None:
        self.slots = slots

    def of(self, name: str) -> str:
        """Return ``$n`` of a parameter."""
        if name not in self.slots:
            self.slots = (*self.slots, name)
        return f"${self.slots.index(name) + 1}"


@dataclass(frozen=True, slots=True)
class Guard:
    """The condition of a write: that its row is there in a version, or that it is not there."""

    check: RowCheck
    is_absence: bool
    filter: tuple[FilterColumn, ...] = ()  # of the caller: other rows are not there for it

    def own(self, places: _Places) -> str:
        """Return OWN, which looks at the row after PLACE has looked at its bucket."""
        if self.is_absence:
            found = f"SELECT 1 FROM {PLACE} WHERE {self._holds(places)}"  # noqa: S608
        else:
            # Held from here on: whoever changes it next waits for this transaction's end.
            found = (
                f"{self._holds(places)} AND EXISTS (SELECT FROM {PLACE})"
                f" FOR NO KEY UPDATE OF {self.check.table}"
            )
        return f"{OWN} AS MATERIALIZED ({found})"

    def _holds(self, places: _Places) -> str:
        check = self.check
        key = check.key.format(key=places.of(check.parameter), bucket=places.of(BUCKET_SLOT))
        for each in self.filter:
            own = places.of(FILTER_PREFIX + each.field)
            key += f" AND {check.table}.{each.column} = {own}::{each.pg_type}"
        if self.is_absence:
            return _ABSENT.format(table=check.table, key=key)
        versions = places.of(VERSIONS_SLOT)
        return _THE_ROW.format(
            table=check.table, key=key, versions=versions, version=check.version
        )

    def question(self) -> WriteStatement:
        """Return WHY with one column more: does the condition hold?"""
        places = _Places((BUCKET_SLOT, EPOCH_SLOT, SCOPE_SLOT))
        holds = self._holds(places)
        told = holds if self.is_absence else f"EXISTS ({holds})"
        head, _, tail = WHY.partition(" FROM (SELECT 1)")
        return WriteStatement(f"{head}, {told} FROM (SELECT 1){tail}", places.slots)


def guard_of(
    check: RowCheck, condition: list[str], row_filter: tuple[FilterColumn, ...] = ()
) -> Guard:
    """Return the guard of a call's condition, for a caller with this row filter."""
    return Guard(check, condition == [calls.ABSENT], row_filter)


def keyed_statement(plan: WritePlan, guard: Guard | None = None) -> WriteStatement:
    """Return the statement that does the plan once for its key."""
    places = _Places(plan.slots)
    bucket, scope = places.of(BUCKET_SLOT), places.of(SCOPE_SLOT)
    own = _own(places, guard, UNSEEN.format(bucket=bucket, scope=scope))
    keep = KEEP.format(
        bucket=bucket,
        scope=scope,
        fingerprint=places.of(FINGERPRINT_SLOT),
        hop=places.of(HOP_SLOT),
        answer=plan.answer,
        found=_found(plan),
    )
    return WriteStatement(f"WITH {own}, {ROW} AS ({plan.sql}) {keep}", places.slots)


def unkeyed_statement(plan: WritePlan, guard: Guard | None = None) -> WriteStatement:
    """Return the statement that does the plan each time it is asked."""
    places = _Places(plan.slots)
    own = _own(places, guard, "")
    answer = f"SELECT {plan.answer} FROM {OWN}{_found(plan)}"  # noqa: S608
    return WriteStatement(f"WITH {own}, {ROW} AS ({plan.sql}) {answer}", places.slots)


def _own(places: _Places, guard: Guard | None, unseen: str) -> str:
    """Return what tells whether the write may be done."""
    place = _PLACE_ROW.format(
        name=OWN if guard is None else PLACE,
        bucket=places.of(BUCKET_SLOT),
        epoch=places.of(EPOCH_SLOT),
        unseen=unseen,
    )
    return place if guard is None else f"{place}, {guard.own(places)}"


def _found(plan: WritePlan) -> str:
    # Where the row must be there, its absence leaves no answer and so nothing to remember.
    return f" WHERE EXISTS (SELECT FROM {ROW})" if plan.must_exist else ""
