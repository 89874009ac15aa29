"""Records of a CSV body, apart from Postgres: where each begins and which bucket it names.

A record is one line unless a quoted value contains a line break. Pure.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence


def split_records(body: bytes) -> list[bytes]:
    """Return the records of a CSV body, each with its line ending; blank lines are no records."""
    lines = _lines(body)
    if b'"' not in body:
        return [line for line in lines if line.strip(b"\r\n")]
    records: list[bytes] = []
    open_record: list[bytes] = []
    quoted = False
    for line in lines:
        if line.count(b'"') % 2:
            quoted = not quoted
        open_record.append(line)
        if not quoted:
            record = open_record[0] if len(open_record) == 1 else b"".join(open_record)
            open_record = []
            if record.strip(b"\r\n"):
                records.append(record)
    if open_record:
        records.append(b"".join(open_record))
    return records


def _lines(body: bytes) -> list[bytes]:
    # Not bytes.splitlines: it also cuts at a lone carriage return inside a value.
    lines = body.split(b"\n")
    last = lines.pop()
    whole = [line + b"\n" for line in lines]
    return [*whole, last] if last else whole


def first_values(records: Sequence[bytes]) -> list[bytes]:
    """Return the text before the first comma of each record: the bucket, never quoted."""
    return [record.partition(b",")[0] for record in records]


def lines_of(records: Sequence[bytes]) -> list[int]:
    """Return the number of the last physical line of each record, counting from 1."""
    ends = []
    line = 0
    for record in records:
        line += max(1, record.count(b"\n"))
        ends.append(line)
    return ends


def values_of(record: bytes) -> list[str]:
    """Return the values of one record."""
    return next(csv.reader(io.StringIO(record.decode("utf-8", "replace"), newline="")), [])
