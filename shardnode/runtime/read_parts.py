"""What comes out of the statements of reads: parts of answers, some with the tag of what they saw.

Invariant: rows and tag are of one statement, so of one snapshot; nothing is asked for twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from modeldefs.kit.aggregates import GROUPS_MAX, GroupStatement
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.snapshots import IS_ROW, TAG
from modeldefs.kit.statements import Statement
from modeldefs.wire import calls
from modeldefs.wire.problems import Problem, ResultTooLarge
from shardnode.runtime.rows import RowEncoder, load_rows

Part = calls.PagePart | calls.GroupPart | bytes


class TaggedPart(NamedTuple):
    """A part of an answer and its tag, "" where it has none; None: the caller has that part."""

    tag: str
    part: Part | None


class TaggedEncoder(RowEncoder):
    """Encodes the results of one statement that tells its tag."""

    def _cells(self, result: Any, limit: int) -> tuple[list[tuple[Any, ...]], bool]:
        count = _own_rows(result)
        rows = load_rows(result, min(count, limit))
        return [row[:IS_ROW] for row in rows], count > limit


def encoder_of(statement: Statement | GroupStatement, *, is_tagged: bool) -> RowEncoder | None:
    """Return what encodes the rows of a statement; None of one that has groups."""
    if not isinstance(statement, Statement):
        return None
    return (TaggedEncoder if is_tagged else RowEncoder)(statement.columns)


def count_rows(call: calls.Call, result: Any) -> int:
    """Return how many rows there are: a statement that tells its tag has one in any case."""
    return _own_rows(result) if call.tag is not None else int(result.ntuples)


def part_of(
    plan: ReadPlan, encoder: RowEncoder | None, call: calls.Call, joined: bool, result: Any
) -> Part | TaggedPart | Problem:
    """Return a result as a part of an answer, or as all of it; with its tag if that was asked."""
    if call.tag is None:
        return _part(plan, encoder, call, joined, result)
    tag = _tag(result)
    if tag and tag == call.tag:
        return TaggedPart(tag, None)
    part = _part(plan, encoder, call, joined, result)
    return part if isinstance(part, Problem) else TaggedPart(tag, part)


def encode_tagged(outcome: TaggedPart, status: int, body: bytes) -> tuple[int, bytes]:
    """Return a stream's answer record for a part that alone would have this status and body."""
    return calls.TAGGED, calls.encode(calls.Tagged(outcome.tag, status, body))


def _part(
    plan: ReadPlan, encoder: RowEncoder | None, call: calls.Call, joined: bool, result: Any
) -> Part | Problem:
    if plan.groups is not None:
        if result.ntuples > GROUPS_MAX:
            return ResultTooLarge(f"there are more than {GROUPS_MAX} groups")
        rows = load_rows(result, count_rows(call, result), list)
        return calls.GroupPart(rows if call.tag is None else [row[:IS_ROW] for row in rows])
    assert encoder is not None
    if joined:
        body, last, more = encoder.encode_joined(result, call.limit)
        return calls.PagePart([body], [last], True) if more else body
    return calls.PagePart(*encoder.encode(result, call.limit))


def _own_rows(result: Any) -> int:
    if result.get_value(0, result.nfields + IS_ROW) is None:
        return 0
    return int(result.ntuples)


def _tag(result: Any) -> str:
    tag = result.get_value(0, result.nfields + TAG)
    return "" if tag is None else str(tag, "ascii")
