"""Writes under a condition on their row: what is asked when one did nothing, and the Python way.

Invariant: a write is refused as stale only where the shard has looked, and nothing is stored under
its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from psycopg import RawCursor

from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.row_filters import filter_columns
from modeldefs.kit.row_versions import RowCheck, row_check
from modeldefs.kit.wireforms import DURATION, form_of
from modeldefs.wire import calls
from modeldefs.wire.problems import InvalidRequest, Problem, Stale
from shardnode.runtime.write_runs import Question, Write


@dataclass(slots=True)
class ConditionalWrite(Write):
    """One write under way that its row's version decides on."""

    why: Question | None = None
    condition: Sequence[str] = ()

    @property
    def asks_why(self) -> bool:
        """Can what refused it be the row that must not be there?"""
        return True

    def question(self) -> Question:
        """Return what to ask when it did nothing, with whether the condition holds."""
        assert self.why is not None
        return self.why

    def unmet(self, result: Any) -> Problem | None:
        """Return the refusal, if the condition does not hold."""
        return None if result.get_value(0, 3) == b"t" else stale(self.condition)


def stale(condition: Sequence[str]) -> Stale:
    """Return what is told of a condition that does not hold."""
    if list(condition) == [calls.ABSENT]:
        return Stale("there is such a row already")
    if list(condition) == [calls.ANY_VERSION]:
        return Stale("there is no such row")
    return Stale("there is no such row, or its version is not among the ETags of If-Match")


def check_of(endpoint: Endpoint[Any, Any]) -> RowCheck:
    """Return how the row of a conditional write is looked at.

    Raises:
        InvalidRequest: The endpoint names no one row; no caller of ours asks it so.
    """
    check = row_check(endpoint)
    if check is None:
        raise InvalidRequest("the endpoint takes no condition")
    return check


def hold(endpoint: Endpoint[Any, Any], call: calls.Call, bucket: int) -> None:
    """Lock the row of a write in the transaction that runs, if its condition holds.

    That a row is absent stays so because the bucket is locked: no other write goes there.

    Raises:
        Stale: It does not hold.
    """
    condition = call.condition or []
    check = check_of(endpoint)
    key = check.key.format(key="$1", bucket="$2")
    params = [_text(endpoint, call, check.parameter), str(bucket)]
    for own in filter_columns(endpoint.model, call.row_filter or ()):
        params.append((call.row_filter or {})[own.field])
        key += f" AND {check.table}.{own.column} = ${len(params)}::{own.pg_type}"
    is_absence = condition == [calls.ABSENT]
    wanted = "1" if is_absence else check.version
    lock = "" if is_absence else f" FOR NO KEY UPDATE OF {check.table}"
    found = _one(
        endpoint,
        f"SELECT {wanted} FROM {check.table} WHERE {key}{lock}",  # noqa: S608 - our own names
        params,
    )
    if is_absence:
        holds = found is None
    else:
        holds = found is not None and (condition == [calls.ANY_VERSION] or found in condition)
    if not holds:
        raise stale(condition)


def _text(endpoint: Endpoint[Any, Any], call: calls.Call, parameter: str) -> str:
    bit = [spec.name for spec in endpoint.parameters].index(parameter)
    if not call.mask >> bit & 1:
        raise InvalidRequest("the call does not name its row")
    return str(call.values[(call.mask & (1 << bit) - 1).bit_count()])


def _one(endpoint: Endpoint[Any, Any], sql: str, params: Sequence[str]) -> str | None:
    """Return the first cell of the row that a statement finds; None without one."""
    fields: Any = endpoint.model._meta.concrete_fields
    has_spans = any(form_of(field) is DURATION for field in fields if field.attname != "bucket")
    with connection.cursor() as cursor:
        if has_spans:  # as reads write them; the author's function reads them in Django's style
            cursor.execute("SET LOCAL intervalstyle = 'iso_8601'")
        with connection.wrap_database_errors, RawCursor(connection.connection) as raw:
            raw.execute(sql, params)
            found = raw.fetchone()
        if has_spans:
            cursor.execute("SET LOCAL intervalstyle = 'postgres'")
    return None if found is None else str(found[0])
