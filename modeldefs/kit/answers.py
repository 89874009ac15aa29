"""From the parts of shards to one outcome, for the dispatcher and for a node called directly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modeldefs.kit.aggregates import GroupStatement, Measure
from modeldefs.kit.front import Ask, GroupsOutcome, PageOutcome, Shards
from modeldefs.kit.merge import (
    MergeColumn,
    OrderKey,
    PagePart,
    empty_totals,
    merge_groups,
    merge_pages,
    sort_groups,
)
from modeldefs.kit.wireforms import BIGINT, BIGINT_SUM, COUNT, DECIMAL, FLOAT, INTEGER
from modeldefs.wire import calls

_KINDS = {COUNT.name: "count", INTEGER.name: "integer", BIGINT.name: "integer"}
_KINDS |= {BIGINT_SUM.name: "integer"}
_KINDS |= {DECIMAL.name: "decimal", FLOAT.name: "float"}


def page_outcome(ask: Ask, parts: Sequence[calls.PagePart], shards: Shards) -> PageOutcome:
    """Return the page of all parts; with one part its rows may be joined already."""
    if len(parts) == 1:
        (part,) = parts
        last = part.keys[-1] if part.keys else None
        return PageOutcome(b",".join(part.rows), last, part.more, shards)
    assert ask.plan is not None
    assert ask.plan.first is not None
    order = [OrderKey(key.descending, key.form is DECIMAL) for key in ask.plan.first.keys]
    merged = merge_pages(
        [PagePart(part.rows, part.keys, part.more) for part in parts], order, ask.limit
    )
    last = list(merged.last) if merged.last is not None else None
    return PageOutcome(b",".join(merged.rows), last, merged.more, shards)


def groups_outcome(ask: Ask, parts: Sequence[calls.GroupPart], shards: Shards) -> GroupsOutcome:
    """Return the groups of all parts: added up, in the endpoint's order, and cut to its top."""
    assert ask.plan is not None
    statement = ask.plan.groups
    assert statement is not None
    measures = [_merge_column(measure) for measure in statement.measures]
    width = len(statement.groups)
    decimals = [n for n, column in enumerate(statement.groups) if column.form is DECIMAL]
    rows = merge_groups((part.rows for part in parts), width, measures, decimals)
    if ask.served.endpoint.shape == "totals":
        return GroupsOutcome(rows or [empty_totals(measures)], shards)
    ordered = sort_groups(rows, _order(ask, statement), width)
    if ask.served.reader.takes_limit:
        ordered = ordered[: ask.limit]
    return GroupsOutcome(ordered, shards)


def _merge_column(measure: Measure) -> MergeColumn:
    return MergeColumn(measure.rule, _KINDS.get(measure.form.name, "other"), measure.scale)


def _order(ask: Ask, statement: GroupStatement) -> list[tuple[int, bool, bool]]:
    columns: dict[str, Any] = {c.name: (n, c) for n, c in enumerate(statement.columns)}
    order = []
    for name in ask.served.endpoint.options.order:
        place, column = columns[name.removeprefix("-")]
        order.append((place, name.startswith("-"), column.form is DECIMAL))
    return order
