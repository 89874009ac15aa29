"""Which records of a refused part are to blame, and why.

Postgres names one culprit per COPY, or none. Here the part is tried again in a transaction that
is rolled back: blocks that pass stay, blocks that fail are cut at the record that Postgres names,
or in half. Every record that would be refused is found, up to a limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from shardnode.storage.records import lines_of

BAD_RECORDS_MAX = 500
BLOCK_RECORDS = 2_048
DETAIL_CHARACTERS_MAX = 300

# "COPY users, line 3, column id": the words are translated by the server's lc_messages, the
# shape is not.
_CONTEXT = re.compile(r"^COPY [^\n,]+, [^\d\n,]{0,40}(\d+)(?:, [^\n:]*?(\w+): )?", re.MULTILINE)

_CODES = {
    "22P02": "wrong-type",
    "22007": "wrong-type",
    "22008": "out-of-range",
    "22003": "out-of-range",
    "22001": "too-long",
    "22P04": "malformed-body",
    "22021": "nul-character",
    "22P05": "invalid-unicode",
    "23502": "missing",
    "23505": "conflict",
    "23503": "unknown-reference",
    "23514": "out-of-range",
    "SP001": "wrong-bucket",
    "SP002": "shard-key-changed",
}
_DETAILS = {
    "23502": "a value is missing in column {column}",
    "23505": "a row with this key exists already: {key}",
    "23503": "it refers to a row that does not exist: {key}",
    "23514": "the value breaks the rule {constraint}",
    "SP001": "the row lies in another bucket",
    "SP002": "the shard key of a row that exists cannot change",
}


@dataclass(frozen=True, slots=True)
class BadRecord:
    """One record that cannot be stored; ``number`` counts from 1, 0 stands for the whole part."""

    number: int
    code: str
    detail: str


def find_bad_records(
    connection: psycopg.Connection[Any],
    records: Sequence[bytes],
    attempt: Callable[[Sequence[bytes]], None],
) -> tuple[list[BadRecord], bool]:
    """Return every record that ``attempt`` would refuse, and whether there may be more.

    Call it in a transaction that is rolled back; ``attempt`` writes the records it is given.
    """
    bad: list[BadRecord] = []
    start, size = 0, BLOCK_RECORDS
    while start < len(records):
        if len(bad) >= BAD_RECORDS_MAX:
            return bad, True
        block = records[start : start + size]
        refusal = _refusal(connection, block, attempt)
        if refusal is None:
            start += len(block)
            size = min(BLOCK_RECORDS, size * 2)
        elif len(block) == 1:
            code, detail = reason_of(refusal)
            bad.append(BadRecord(start + 1, code, detail))
            start += 1
        else:
            size = _shorter(block, refusal)
    return bad, False


def _shorter(block: Sequence[bytes], refusal: psycopg.Error) -> int:
    """Return how many records to try next: those before the culprit, or the culprit alone."""
    place = _culprit(block, refusal)
    if place is None:
        return max(1, len(block) // 2)
    return max(1, place)


def _refusal(
    connection: psycopg.Connection[Any],
    block: Sequence[bytes],
    attempt: Callable[[Sequence[bytes]], None],
) -> psycopg.Error | None:
    try:
        with connection.transaction():
            attempt(block)
    except psycopg.Error as refusal:
        if not is_about_records(refusal):
            raise
        return refusal
    return None


def is_about_records(refusal: psycopg.Error) -> bool:
    """Return whether a refusal blames the records, not the server or the request."""
    if isinstance(refusal, psycopg.errors.DataError | psycopg.errors.IntegrityError):
        return True
    return refusal.sqlstate in ("SP001", "SP002")


def _culprit(block: Sequence[bytes], refusal: psycopg.Error) -> int | None:
    """Return the position in the block of the record that Postgres names, if it names one."""
    found = _CONTEXT.search(refusal.diag.context or "")
    if found is None:
        return None
    line = int(found.group(1))
    for place, last_line in enumerate(lines_of(block)):
        if last_line >= line:
            return place
    return None


def reason_of(refusal: psycopg.Error) -> tuple[str, str]:
    """Return a code and a sentence for a refusal: values and columns, no SQL, no table names."""
    state = refusal.sqlstate or ""
    diag = refusal.diag
    code = _CODES.get(state, "refused")
    if state in _DETAILS:
        key = re.search(r"\(.*\)=\(.*\)", diag.message_detail or "", re.DOTALL)
        detail = _DETAILS[state].format(
            column=diag.column_name or "?",
            constraint=diag.constraint_name or "?",
            key=key.group(0) if key else "?",
        )
    else:
        context = _CONTEXT.search(diag.context or "")
        column = f"{context.group(2)}: " if context and context.group(2) else ""
        detail = f"{column}{diag.message_primary or 'refused'}"
    return code, detail[:DETAIL_CHARACTERS_MAX]
