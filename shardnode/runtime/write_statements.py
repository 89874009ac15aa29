"""The one statement of a traced write: may it write here, do it, remember what was answered.

    sp_own    the bucket's row at the caller's epoch, share-locked; empty if the bucket is not
              ours, or if the key was seen before
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

from modeldefs.kit.write_plans import BUCKET_SLOT, OWN, ROW, WritePlan

EPOCH_SLOT = "sp_epoch"
SCOPE_SLOT = "sp_scope"
FINGERPRINT_SLOT = "sp_fingerprint"
HOP_SLOT = "sp_hop"

_OWN_ROW = (
    f"{OWN} AS MATERIALIZED ("  # noqa: S608 - of our own names and ``$n``, as all below
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


def keyed_statement(plan: WritePlan) -> WriteStatement:
    """Return the statement that does the plan once for its key."""
    places = _Places(plan.slots)
    bucket, scope = places.of(BUCKET_SLOT), places.of(SCOPE_SLOT)
    own = _OWN_ROW.format(
        bucket=bucket,
        epoch=places.of(EPOCH_SLOT),
        unseen=UNSEEN.format(bucket=bucket, scope=scope),
    )
    keep = KEEP.format(
        bucket=bucket,
        scope=scope,
        fingerprint=places.of(FINGERPRINT_SLOT),
        hop=places.of(HOP_SLOT),
        answer=plan.answer,
        found=_found(plan),
    )
    return WriteStatement(f"WITH {own}, {ROW} AS ({plan.sql}) {keep}", places.slots)


def unkeyed_statement(plan: WritePlan) -> WriteStatement:
    """Return the statement that does the plan each time it is asked."""
    places = _Places(plan.slots)
    own = _OWN_ROW.format(bucket=places.of(BUCKET_SLOT), epoch=places.of(EPOCH_SLOT), unseen="")
    answer = f"SELECT {plan.answer} FROM {OWN}{_found(plan)}"  # noqa: S608
    return WriteStatement(f"WITH {own}, {ROW} AS ({plan.sql}) {answer}", places.slots)


def _found(plan: WritePlan) -> str:
    # Where the row must be there, its absence leaves no answer and so nothing to remember.
    return f" WHERE EXISTS (SELECT FROM {ROW})" if plan.must_exist else ""
