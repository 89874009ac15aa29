"""From the parts of shards to one outcome, for the dispatcher and for a node called directly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

import msgspec

from modeldefs.kit.aggregates import GroupStatement, Measure
from modeldefs.kit.asks import Ask, GroupsOutcome, PageOutcome, Shards
from modeldefs.kit.merge import (
    MergeColumn,
    OrderKey,
    PagePart,
    empty_totals,
    merge_groups,
    merge_pages,
    short_parts,
    sort_groups,
)
from modeldefs.kit.walks import Ranges, can_be_told, late_rows, stand_after
from modeldefs.kit.wireforms import BIGINT, BIGINT_SUM, COUNT, DECIMAL, FLOAT, INTEGER, JSON
from modeldefs.wire import calls
from modeldefs.wire.cursors import Stand
from modeldefs.wire.problems import ShardUnavailable

# What Postgres' own to_json writes, too.
_NOT_JSON = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_KINDS = {COUNT.name: "count", INTEGER.name: "integer", BIGINT.name: "integer"}
_KINDS |= {BIGINT_SUM.name: "integer"}
_KINDS |= {DECIMAL.name: "decimal", FLOAT.name: "float"}


def page_outcome(ask: Ask, parts: Sequence[calls.PagePart], shards: Shards) -> PageOutcome:
    """Return the page of all parts; with one part its rows may be joined already."""
    if len(parts) == 1:
        (part,) = parts
        last = part.keys[-1] if part.keys else None
        return PageOutcome(b",".join(part.rows), last, part.more, shards)
    outcome, _ = merged_outcome(ask, parts, shards)
    return outcome


def merged_outcome(
    ask: Ask, parts: Sequence[calls.PagePart], shards: Shards
) -> tuple[PageOutcome, list[int]]:
    """Return the page of several parts, and which of them must be asked for all of it first."""
    order = _page_order(ask)
    pages = [PagePart(part.rows, part.keys, part.more) for part in parts]
    merged = merge_pages(pages, order, ask.limit)
    last = list(merged.last) if merged.last is not None else None
    outcome = PageOutcome(b",".join(merged.rows), last, merged.more, shards)
    return outcome, short_parts(pages, merged, order, ask.limit)


def walked_outcome(
    ask: Ask, parts: Sequence[calls.PagePart], shards: Shards, missing: Ranges
) -> PageOutcome:
    """Return a page of a walk in which buckets are missing, or were: with where each stands then.

    Raises:
        ShardUnavailable: They stand in more places than a cursor can hold.
    """
    order = _page_order(ask)
    outcome, _ = merged_outcome(ask, parts, shards)
    before = Stand(ask.after, ask.lagging)
    keys = [key for part in parts for key in part.keys]
    late = late_rows(before, keys, outcome.last, order)
    behind = stand_after(before, missing, outcome.last, order, more=outcome.more)
    told = replace(shards, late=late) if late else shards
    if behind is None or ask.served.is_single:
        return PageOutcome(outcome.rows, None, False, told)
    if not can_be_told(behind.lagging):
        raise ShardUnavailable(
            "too many parts of this walk stand in different places: wait for the shards",
            shards=shards.missing,
        )
    return PageOutcome(outcome.rows, behind.position, True, told, behind.lagging)


def _page_order(ask: Ask) -> list[OrderKey]:
    assert ask.plan is not None
    assert ask.plan.first is not None
    return [OrderKey(key.descending, key.form is DECIMAL) for key in ask.plan.first.keys]


def groups_outcome(ask: Ask, parts: Sequence[calls.GroupPart], shards: Shards) -> GroupsOutcome:
    """Return the groups of all parts: added up, in the endpoint's order, and cut to its top."""
    assert ask.plan is not None
    statement = ask.plan.groups
    assert statement is not None
    measures = [_merge_column(measure) for measure in statement.measures]
    width = len(statement.groups)
    decimals = [n for n, column in enumerate(statement.groups) if column.form is DECIMAL]
    rows = merge_groups((part.rows for part in parts), width, measures, decimals)
    if not statement.groups:  # totals, or the count of a page
        return GroupsOutcome(_sendable(rows or [empty_totals(measures)], statement), shards)
    ordered = sort_groups(rows, _order(ask, statement), width)
    if ask.served.reader.takes_limit:
        ordered = ordered[: ask.limit]
    return GroupsOutcome(_sendable(ordered, statement), shards)


def _sendable(rows: list[list[Any]], statement: GroupStatement) -> list[list[Any]]:
    """Return the rows with JSON as it stands, and doubles that JSON cannot write as texts."""
    raw = [(n, c.form) for n, c in enumerate(statement.columns) if c.form.cell == "raw"]
    for row in rows:
        for place, form in raw:
            value = row[place]
            if form is JSON and isinstance(value, str):
                row[place] = msgspec.Raw(value.encode())
            elif isinstance(value, float) and not isfinite(value):
                row[place] = _NOT_JSON[repr(value)]
    return rows


def _merge_column(measure: Measure) -> MergeColumn:
    kind = _KINDS.get(measure.form.name, "other")
    # A count of nothing is 0; a sum of nothing is absent, whatever number it would be.
    return MergeColumn(
        measure.rule, "integer" if kind == "count" and measure.nullable else kind, measure.scale
    )


def _order(ask: Ask, statement: GroupStatement) -> list[tuple[int, bool, bool]]:
    columns: dict[str, Any] = {c.name: (n, c) for n, c in enumerate(statement.columns)}
    order = []
    for name in ask.served.endpoint.options.order:
        place, column = columns[name.removeprefix("-")]
        order.append((place, name.startswith("-"), column.form is DECIMAL))
    return order
