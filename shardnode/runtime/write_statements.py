"""The one statement of a traced write: may it write here, was it done before, do it, remember it.

    sp_seen   what an earlier request with this key was answered, if there was one
    sp_own    the bucket's row at the caller's epoch, share-locked; empty if the bucket is not
              ours, or if the key was seen
    sp_row    the author's INSERT, UPDATE or DELETE, which reads sp_own and so does nothing
              without it
    sp_kept   the answer, stored under the key

``sp_own`` also sets ``sp.bucket``, by which the guard triggers tell a row of this bucket from one
that a mutation should not touch. They look at it when a row is written, and the row waits for
sp_own, so it is set before: also when the statement before it in the same transaction had another.

Invariant: the row and its key are written by one statement, so either both are there or neither.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from modeldefs.kit.write_plans import BUCKET_SLOT, OWN, ROW, WritePlan

EPOCH_SLOT = "sp_epoch"
SCOPE_SLOT = "sp_scope"
FINGERPRINT_SLOT = "sp_fingerprint"
HOP_SLOT = "sp_hop"
KEY_CONSTRAINT = "sp_idempotency_pkey"

# Columns of the one row that comes back: ours?, the answer, and what was stored before.
OWNED, BODY, SEEN_FINGERPRINT, SEEN_BODY = range(4)

_OWN_ROW = (
    f"{OWN} AS MATERIALIZED ("
    "SELECT set_config('sp.bucket', b.bucket::text, true) FROM sp_bucket b"
    " WHERE b.bucket = {bucket}::integer AND b.epoch = {epoch}::bigint AND b.state = 'owned'"
    "{unseen} FOR SHARE OF b)"
)
_SEEN = (
    "sp_seen AS MATERIALIZED (SELECT i.fingerprint, i.body FROM sp_idempotency i"
    " WHERE i.bucket = {bucket}::integer AND i.scope = {scope}::uuid)"
)
_KEPT = (
    "sp_kept AS (INSERT INTO sp_idempotency (bucket, scope, fingerprint, hop, body)"
    " SELECT {bucket}::integer, {scope}::uuid, {fingerprint}::bytea, {hop}::boolean, {answer}"
    f" FROM {OWN}{{found}} RETURNING body)"
)


@dataclass(frozen=True, slots=True)
class WriteStatement:
    """A write plan's full statement, and what fills its parameters."""

    sql: str
    slots: tuple[str, ...]


def scope_of(principal: str, endpoint: str, key: str) -> str:
    """Return where a key is remembered: equal for equal principal, endpoint and key only.

    A hash of 128 bits instead of three texts: its index entry is a fifth as large, and every
    write pays for one.
    """
    parts = [part.encode() for part in (principal, endpoint, key)]
    joined = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return hashlib.blake2b(joined, digest_size=16, person=b"sp-idempotency").hexdigest()


def keyed_statement(plan: WritePlan) -> WriteStatement:
    """Return the statement that does the plan once for its key."""
    names = _Names(plan.slots)
    bucket, scope = names.place(BUCKET_SLOT), names.place(SCOPE_SLOT)
    seen = _SEEN.format(bucket=bucket, scope=scope)
    own = _OWN_ROW.format(
        bucket=bucket,
        epoch=names.place(EPOCH_SLOT),
        unseen=" AND NOT EXISTS (SELECT FROM sp_seen)",
    )
    kept = _KEPT.format(
        bucket=bucket,
        scope=scope,
        fingerprint=names.place(FINGERPRINT_SLOT),
        hop=names.place(HOP_SLOT),
        answer=plan.answer,
        found=f" WHERE EXISTS (SELECT FROM {ROW})" if plan.must_exist else "",
    )
    text = (
        f"WITH {seen}, {own}, {ROW} AS ({plan.sql}), {kept}"
        f" SELECT EXISTS (SELECT FROM {OWN}), (SELECT body FROM sp_kept),"
        " (SELECT fingerprint FROM sp_seen), (SELECT body FROM sp_seen)"
    )
    return WriteStatement(text, names.slots)


def unkeyed_statement(plan: WritePlan) -> WriteStatement:
    """Return the statement that does the plan each time it is asked."""
    names = _Names(plan.slots)
    own = _OWN_ROW.format(
        bucket=names.place(BUCKET_SLOT), epoch=names.place(EPOCH_SLOT), unseen=""
    )
    answer = plan.answer
    if plan.must_exist:
        answer = f"CASE WHEN EXISTS (SELECT FROM {ROW}) THEN {answer} END"
    text = (
        f"WITH {own}, {ROW} AS ({plan.sql})"
        f" SELECT EXISTS (SELECT FROM {OWN}), {answer}, NULL, NULL"
    )
    return WriteStatement(text, names.slots)


class _Names:
    """The parameters of a statement by name: those of the plan first, each once."""

    def __init__(self, slots: tuple[str, ...]) -> None:
        self.slots = slots

    def place(self, name: str) -> str:
        """Return ``$n`` of a parameter."""
        if name not in self.slots:
            self.slots = (*self.slots, name)
        return f"${self.slots.index(name) + 1}"
