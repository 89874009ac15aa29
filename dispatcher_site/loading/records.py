"""CSV as this project reads and writes it: RFC 4180 in bytes, one way to read every record.

A field is quoted whole or not at all. A quote inside an unquoted field is refused, because readers
disagree about it (Postgres begins a quotation there, Python's csv does not). An empty field is
absent; ``""`` is the empty text.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

QUOTE = b'"'

# Possessive: a long malformed record must not make the match go back over it again and again.
_FIELD = rb'(?:"(?:[^"]++|"")*+"|[^",]*+)'
_RECORD = re.compile(_FIELD + rb"(?:," + _FIELD + rb")*+")
_FIELDS = re.compile(rb'(?:"((?:[^"]++|"")*+)"|([^",]*+))(,|\Z)')
_MUST_QUOTE = re.compile(rb'[",\r\n]|\A\\\.\Z|\A\Z')


class BadRecord(ValueError):
    """The record is not well-formed CSV, or a value in it cannot be read."""


def is_well_formed(record: bytes) -> bool:
    """Is every field of the record, given without its line end, quoted whole or not at all?"""
    return _RECORD.fullmatch(record) is not None


def record_pattern(fields: int, *, capture: int) -> re.Pattern[bytes]:
    """Return what matches a well-formed record of so many fields.

    Its two groups are the inside of the captured field if it is quoted, else the field.
    """
    captured = rb'(?:"((?:[^"]++|"")*+)"|([^",]*+))'
    parts = [_FIELD] * fields
    parts[capture] = captured
    return re.compile(b",".join(parts))


def fields_of(record: bytes) -> list[bytes | None]:
    """Return the fields of a record without its line end; None for an empty unquoted one.

    Raises:
        BadRecord: A quote stands inside an unquoted field, or is not closed.
    """
    if QUOTE not in record:
        return [field or None for field in record.split(b",")]
    if not is_well_formed(record):
        raise BadRecord("a quote is not closed, or stands inside a field that is not quoted")
    fields: list[bytes | None] = []
    for match in _FIELDS.finditer(record):
        quoted, plain, end = match.groups()
        fields.append(plain or None if quoted is None else quoted.replace(b'""', QUOTE))
        if not end:
            break
    return fields


def write_field(value: bytes | None) -> bytes:
    """Return a field as it stands in a record; None becomes nothing at all."""
    if value is None:
        return b""
    if _MUST_QUOTE.search(value):
        return QUOTE + value.replace(QUOTE, b'""') + QUOTE
    return value


def write_record(values: Iterable[bytes | None]) -> bytes:
    """Return a record with its line end."""
    return b",".join(map(write_field, values)) + b"\n"


def records_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each record of whole lines with the number of its first line, counted from 0.

    Line ends (LF or CR LF) and blank lines are left out. A record whose quotes do not pair up is
    yielded as its first line only, and reading goes on with the next: one bad line spoils itself.
    """
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    at = 0
    while at < len(lines):
        record, taken = lines[at], 1
        if record.count(QUOTE) % 2:
            record, taken = _joined(lines, at)
        record = record.removesuffix(b"\r")
        if record:
            yield at, record
        at += taken


def _joined(lines: list[bytes], at: int) -> tuple[bytes, int]:
    quotes = 0
    for end in range(at, len(lines)):
        quotes += lines[end].count(QUOTE)
        if quotes % 2 == 0:
            record = b"\n".join(lines[at : end + 1])
            if not is_well_formed(record.removesuffix(b"\r")):
                break
            return record, end + 1 - at
    return lines[at], 1


def end_of_records(data: bytes, *, quoted: bool) -> int:
    """Return how many bytes of the data are whole records, 0 if not even one is known to end.

    Args:
        data: Begins with the first byte of a record.
        quoted: A line end inside quotes does not end a record, as in CSV; false for JSON lines.
    """
    end = data.rfind(b"\n")
    if not quoted or QUOTE not in data:
        return end + 1
    quotes = data.count(QUOTE, 0, end + 1)
    while end >= 0 and quotes % 2:
        before = data.rfind(b"\n", 0, end)
        quotes -= data.count(QUOTE, before + 1, end + 1)
        end = before
    return end + 1
