"""What Postgres refused, as the problem that a client is told.

The mapping is by SQLSTATE alone; Postgres' own text may hold SQL, table names and row values and
never leaves the node.
"""

from __future__ import annotations

from modeldefs.wire.problems import (
    Conflict,
    DeadlineExceeded,
    DefinitionFault,
    Forbidden,
    InFlight,
    Internal,
    InvalidRequest,
    NotPrimary,
    Problem,
    ShardBehind,
    ShardFault,
    ShardUnavailable,
    StorageFull,
    TransactionConflict,
)

WRONG_BUCKET = "SP001"
KEY_CHANGED = "SP002"
REFERENCE_ROW = "SP005"
CONNECTION_LOST = "08006"
DUPLICATE = "23505"
EXCLUDED = "23P01"
# What stands in a row's way may be the row itself, written by another try under the same key.
TWINS = frozenset({DUPLICATE, EXCLUDED})
LOCK_TIMEOUT = "55P03"
TERMINATED = "57P01"
RETRYABLE = frozenset({"40001", "40P01"})

_CONFLICTS = {
    "23505": "a row with this key is stored already",
    "23503": "a row that it refers to is missing, or rows still refer to it",
    "23P01": "a stored row excludes it",
}
_BAD_VALUES = frozenset({"23502", "23514", "22001", "22003", "22007", "22008", "22P02"})


def problem_of_sqlstate(
    sqlstate: str, *, is_write: bool, shard: str, is_keyed: bool = False
) -> Problem:
    """Return the problem for an error of Postgres while it ran an endpoint.

    Args:
        sqlstate: The error's code.
        is_write: Was it a mutation?
        shard: This shard's name, for what is told of it.
        is_keyed: Did the client send an Idempotency-Key?
    """
    if sqlstate == LOCK_TIMEOUT:
        return InFlight() if is_keyed else TransactionConflict()
    if sqlstate in _CONFLICTS:
        return Conflict(f"the write conflicts with what is stored: {_CONFLICTS[sqlstate]}")
    if sqlstate in _BAD_VALUES:
        if is_write:
            return InvalidRequest("a value is not one that the column takes")
        return DefinitionFault()
    if sqlstate in RETRYABLE:
        return TransactionConflict()
    if sqlstate == "57014":
        return DeadlineExceeded()
    if sqlstate == "53100":
        return StorageFull()
    if sqlstate[:2] in ("08", "53") or sqlstate in ("57P01", "57P02", "57P03"):
        return ShardUnavailable(shards=[ShardFault(shard, "recovering")])
    return _by_code(sqlstate, is_write=is_write)


def _by_code(sqlstate: str, *, is_write: bool) -> Problem:
    if sqlstate == WRONG_BUCKET:
        return DefinitionFault("the mutation touches a row of another bucket than its own")
    if sqlstate == REFERENCE_ROW:
        return DefinitionFault("the mutation writes a reference model, which every shard has")
    if sqlstate == "25006" and is_write:
        return NotPrimary()
    if sqlstate == "42501":
        return Forbidden("the shard's database refuses this to the endpoint's role")
    if sqlstate in ("42P01", "42703"):
        return ShardBehind()
    if sqlstate[:2] in ("22", "23") or sqlstate == KEY_CHANGED:
        return DefinitionFault()
    return Internal()
