"""Lanes whose statements run under a row filter, each under its own.

Ahead of every statement goes one that sets the transaction's ``sp.filter...`` settings, which row
level security compares rows with. Statements of one batch share a transaction, so each sets all of
them anew, and one that came without a filter unsets them: then it finds no row.

Invariant: no statement of a filtered lane ever runs under the settings of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shardnode.runtime.lane_statements import LaneStatement
from shardnode.runtime.lanes import BEFORE, Lane
from shardnode.storage.row_security import settings_statement, settings_values


class FilteredParams(list[bytes | None]):
    """The parameters of a statement, and the row filter that it runs under."""

    __slots__ = ("row_filter",)

    def __init__(self, params: Sequence[bytes | None], row_filter: Mapping[str, str]) -> None:
        super().__init__(params)
        self.row_filter = row_filter


def filtered_lane(fields: Sequence[str]) -> type[Lane]:
    """Return the lanes of a worker whose definitions declare these filter fields."""
    sql = settings_statement(fields).encode()

    class FilteredLane(Lane):
        """A lane that names each statement's row filter."""

        def _submit(self, connection: Any, statement: LaneStatement) -> None:
            row_filter = getattr(statement.params, "row_filter", None)
            values = [value.encode() for value in settings_values(fields, row_filter)]
            connection.send_query_params(sql, values)
            self._queue.append((BEFORE, None))
            super()._submit(connection, statement)

    return FilteredLane
