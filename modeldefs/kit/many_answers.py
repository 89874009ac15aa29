"""What a batch is answered: the rows of all its items, or which of them were written.

The shards of a batch write apart from each other, so one may refuse what others have written. The
problem then says of every item whether it is stored: ``written`` has the places of the items, in
ranges, under ``yes``, ``no`` and ``unknown``.

Invariant: "yes" and "no" are never guesses; what nobody may know is "unknown". Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from modeldefs.kit.buckets import ranges_of
from modeldefs.kit.declared_problems import DeclaredProblem
from modeldefs.wire.problems import InputError, Problem, ShardFault

ERRORS_MAX = 100
# After these of a write it is unknown whether it happened; of in-flight because its twin may.
UNSETTLED = frozenset(
    {"shard-reset", "shard-untrusted", "internal", "deadline-exceeded", "in-flight"}
)
# A node says these, and an author's own, of a batch only when nothing is stored under its key: it
# looked there, or the items are such that no try could have written them.
SURE = frozenset({"conflict", "invalid-request"})
_ITEM = re.compile(r"/items/([0-9]{1,6})(?=/|\Z)")


class Fate(Enum):
    """What became of the items of one shard."""

    WRITTEN = "yes"
    REFUSED = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Part:
    """The items of a batch that one shard was asked to write, and what it said."""

    places: Sequence[int]  # of the items in the request, ascending
    fate: Fate
    rows: Sequence[bytes] = ()
    is_replay: bool = False
    problem: Problem | None = None
    shard: str = ""


def split_rows(body: bytes) -> list[bytes]:
    """Return the rows of one shard's answer, which has LF between them and nowhere else."""
    return body.split(b"\n")


def fate_of(problem: Problem, *, may_be_done: bool = False) -> Fate:
    """Return what a refusal says of the items that were sent.

    Args:
        problem: The refusal.
        may_be_done: Another try may have written them under the same key: one of ours that was
            lost, or an earlier request of a client who sent a key.
    """
    if may_be_done:
        is_sure = problem.code in SURE or isinstance(problem, DeclaredProblem)
        return Fate.REFUSED if is_sure else Fate.UNKNOWN
    return Fate.UNKNOWN if problem.code in UNSETTLED else Fate.REFUSED


def joined(parts: Sequence[Part]) -> bytes:
    """Return the JSON array of all rows in the order of the items."""
    if len(parts) == 1:
        return b"[%b]" % b",".join(parts[0].rows)
    rows = [b""] * sum(len(part.places) for part in parts)
    for part in parts:
        for place, row in zip(part.places, part.rows, strict=True):
            rows[place] = row
    return b"[%b]" % b",".join(rows)


def refusal(parts: Sequence[Part], *, is_keyed: bool) -> Problem:
    """Return the problem of a batch of which a part at least was not written.

    It is that of the refused part whose item comes first, and names the shards of the others.

    Args:
        parts: All parts.
        is_keyed: The client sent a key, so the same request again does only what is missing.
    """
    refused = sorted(
        (part for part in parts if part.problem is not None), key=lambda part: part.places[0]
    )
    problem = refused[0].problem
    assert problem is not None
    by_fate = {
        fate.value: [
            list(pair)
            for pair in ranges_of(sorted(p for part in parts if part.fate is fate
                                         for p in part.places))
        ]
        for fate in Fate
    }  # fmt: skip
    members = {**problem.members, "written": by_fate}
    if not is_keyed and (by_fate["yes"] or by_fate["unknown"]):
        members["retryable"] = False  # what is stored would be written again, or be a conflict
    elif is_keyed and problem.code == "shard-reset":
        members["retryable"] = True  # under the key it is done once
    errors = [error for part in refused for error in _placed(part)]
    return type(problem)(
        problem.detail,
        errors=errors[:ERRORS_MAX],
        shards=_faults(refused),
        retry_after_ms=problem.retry_after_ms,
        headers=problem.headers,
        members=members,
    )


def _faults(refused: Sequence[Part]) -> Iterable[ShardFault]:
    for part in refused:
        assert part.problem is not None
        if part.problem.shards:
            yield from part.problem.shards
        elif part.shard:
            yield ShardFault(part.shard, part.problem.code)


def _placed(part: Part) -> Iterable[InputError]:
    """Yield the errors of a part, which counts its own items, as the request counts them."""
    assert part.problem is not None
    for error in part.problem.errors:
        match = _ITEM.match(error.pointer or "")
        if match is None or int(match[1]) >= len(part.places):
            yield error
            continue
        rest = (error.pointer or "")[match.end() :]
        yield replace(error, pointer=f"/items/{part.places[int(match[1])]}{rest}")
