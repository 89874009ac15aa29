"""Which values of a row Postgres will surely refuse, so that one look finds all bad lines.

COPY names one bad line and stops. Once a shard has refused a part, the rest of it is looked
through here: only what Postgres certainly refuses is named, so a good line is never rejected.

Pure: no I/O.
"""

from __future__ import annotations

import re
from uuid import UUID

import msgspec

from dispatcher_site.loading.columns import Column, Mapping
from dispatcher_site.loading.records import fields_of

_INTEGER = re.compile(rb"\s*[+-]?[0-9]+\s*")
_BASED_INTEGER = re.compile(rb"\s*[+-]?(?:0[xXoObB])?[0-9a-fA-F_]+\s*")
_NUMBER = re.compile(rb"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")
_WORDED_NUMBER = re.compile(rb"\s*[+-]?(?:nan|inf|infinity|0x[0-9a-f_]+|[0-9_.e+-]+)\s*", re.I)
_BOOLEANS = frozenset(
    word[:end]
    for word in (b"true", b"false", b"yes", b"no", b"on", b"off", b"1", b"0")
    for end in range(1 if word not in (b"on", b"off") else 2, len(word) + 1)
)


def _integer(column: Column, value: bytes) -> str | None:
    if not _INTEGER.fullmatch(value):
        # Newer servers also read 0x1F and 1_000.
        return None if _BASED_INTEGER.fullmatch(value) else "is not an integer"
    if not column.low <= int(value) <= column.high:
        return f"is not between {column.low} and {column.high}"
    return None


def _number(value: bytes) -> str | None:
    if _NUMBER.fullmatch(value) or _WORDED_NUMBER.fullmatch(value):
        return None
    return "is not a number"


def _boolean(value: bytes) -> str | None:
    return None if value.strip().lower() in _BOOLEANS else "is not a boolean"


def _uuid(value: bytes) -> str | None:
    try:
        UUID(value.decode("ascii").strip("{}"))
    except ValueError:
        return "is not a UUID"
    return None


def _json(value: bytes) -> str | None:
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError):
        return "is not JSON"
    return None


def _fault(column: Column, value: bytes) -> str | None:
    match column.kind:
        case "integer":
            return _integer(column, value)
        case "number":
            return _number(value)
        case "boolean":
            return _boolean(value)
        case "uuid":
            return _uuid(value)
        case "json":
            return _json(value)
        case "text" if column.length_max is not None:
            too_long = len(value.decode("utf-8", "replace").rstrip(" ")) > column.length_max
            return f"has more than {column.length_max} characters" if too_long else None
        case _:
            return None


def reason_against(mapping: Mapping, record: bytes) -> str | None:
    """Return why Postgres will refuse this record of the mapping's columns, or None."""
    for column, value in zip(mapping.columns, fields_of(record), strict=True):
        if value is None:
            if not column.nullable and not column.empty_is_text:
                return f"{column.name} is empty"
            continue
        fault = _fault(column, value)
        if fault is not None:
            return f"{column.name} {fault}: {value[:60].decode('utf-8', 'replace')!r}"
    return None
