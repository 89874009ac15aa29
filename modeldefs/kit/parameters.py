"""The parameters of an endpoint: what may be sent, and the one text that each value becomes.

A value is checked strictly (no coercion, no second spelling) and leaves as the *text* that
Postgres reads for its type. The text is canonical: equal values give equal text, so a bucket, a
cursor and a fingerprint can be computed from it on either side.

Source: RFC 7493 (I-JSON), RFC 3339.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from modeldefs.kit.errors import DefinitionError

INT64_MAX = 2**63 - 1
SAFE_INTEGER_MAX = 2**53 - 1
TEXT_LENGTH_MAX = 1_000_000
DECIMAL_DIGITS_MAX = 1_000

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)\Z", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?\Z", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", re.ASCII)
_DATETIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})\Z",
    re.ASCII,
)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.ASCII)
_DURATION = re.compile(
    r"-?P(?=[-0-9T])(?:(-?[0-9]+)D)?(?:T(?=[-0-9])(?:(-?[0-9]+)H)?(?:(-?[0-9]+)M)?"
    r"(?:(-?[0-9]+(?:\.[0-9]{1,6})?)S)?)?\Z",
    re.ASCII,
)


class BadValue(Exception):
    """A value breaks its parameter's type; the code is one of the contract's."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


class NumberToken(str):
    """A number as it stood in a JSON text, not yet read as one."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ValueKind:
    """One type that a parameter may have."""

    name: str
    pg_type: str
    from_text: Callable[[str, ParameterSpec], str]  # the strict text form, as in a URL
    in_json: str  # "text", "number", "boolean" or "either": how JSON carries it
    to_python: Callable[[str], Any]
    schema: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One declared parameter of an endpoint."""

    name: str
    kind: ValueKind
    required: bool
    is_list: bool = False
    default: str | None = None  # canonical text; None: absent stays absent
    nullable: bool = False  # JSON null is a value (writes only)
    low: int = -INT64_MAX - 1
    high: int = INT64_MAX
    length_max: int = TEXT_LENGTH_MAX
    choices: tuple[str, ...] = ()

    @property
    def pg_type(self) -> str:
        """The Postgres type that the parameter is cast to."""
        return f"{self.kind.pg_type}[]" if self.is_list else self.kind.pg_type

    def text_of(self, text: str) -> str:
        """Return the canonical text of one value that came as text.

        Raises:
            BadValue: The value is not of this type, or outside its bounds.
        """
        if "\x00" in text:
            raise BadValue("nul-character", "contains a NUL character")
        canonical = self.kind.from_text(text, self)
        if self.choices and canonical not in self.choices:
            raise BadValue("wrong-type", f"is not one of {', '.join(self.choices)}")
        return canonical

    def text_of_json(self, value: Any) -> str:
        """Return the canonical text of one JSON leaf; numbers come as ``NumberToken``."""
        carried = self.kind.in_json
        if isinstance(value, bool):
            if carried != "boolean":
                raise BadValue("wrong-type", f"is a boolean, not {self.kind.name}")
            return "true" if value else "false"
        if isinstance(value, NumberToken):
            if carried not in ("number", "either"):
                raise BadValue("wrong-type", f"is a number, not {self.kind.name} as text")
            if carried == "either":
                self._refuse_unsafe(value)
            return self.text_of(str(value))
        if isinstance(value, str):
            if carried not in ("text", "either"):
                raise BadValue("wrong-type", f"is text, not {self.kind.name}")
            _refuse_surrogates(value)
            return self.text_of(value)
        what = "null" if value is None else "an array" if isinstance(value, list) else "an object"
        raise BadValue("wrong-type", f"is {what}, not {self.kind.name}")

    def _refuse_unsafe(self, token: NumberToken) -> None:
        digits = token.lstrip("-")
        if _INTEGER.match(token) and (len(digits) > 16 or int(digits) > SAFE_INTEGER_MAX):
            raise BadValue(
                "out-of-range", "is beyond 2^53 as a JSON number: send it as a string of digits"
            )


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadValue("invalid-unicode", "contains a lone surrogate") from None


def _integer(text: str, spec: ParameterSpec) -> str:
    if not _INTEGER.match(text):
        raise BadValue("wrong-type", "is not an integer")
    if len(text) > 20 or not spec.low <= int(text) <= spec.high:
        raise BadValue("out-of-range", f"is not between {spec.low} and {spec.high}")
    return str(int(text))


def _text(text: str, spec: ParameterSpec) -> str:
    if len(text) > spec.length_max:
        raise BadValue("too-long", f"has {len(text)} characters; {spec.length_max} are allowed")
    return text


def _boolean(text: str, spec: ParameterSpec) -> str:
    if text not in ("true", "false"):
        raise BadValue("wrong-type", "is neither true nor false")
    return text


def _float(text: str, spec: ParameterSpec) -> str:
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        raise BadValue("not-finite", "is not a finite number")
    if len(text) > 400 or not _NUMBER.match(text):
        raise BadValue("wrong-type", "is not a number")
    value = float(text)
    if not math.isfinite(value):
        raise BadValue("not-finite", "is too large for a double")
    return repr(value + 0.0)


def _decimal(text: str, spec: ParameterSpec) -> str:
    if text.lower().lstrip("+-") in ("nan", "snan", "inf", "infinity"):
        raise BadValue("not-finite", "is not a finite number")
    if len(text) > DECIMAL_DIGITS_MAX or not _DECIMAL.match(text):
        raise BadValue("wrong-type", "is not a decimal number")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _date(text: str, spec: ParameterSpec) -> str:
    if not _DATE.match(text):
        raise BadValue("wrong-type", "is not a date like 2026-11-23")
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise BadValue("out-of-range", "is no day of the calendar") from None


def _datetime(text: str, spec: ParameterSpec) -> str:
    if not _DATETIME.match(text):
        raise BadValue("wrong-type", "is not a date-time with offset like 2026-11-23T02:36:23Z")
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise BadValue("out-of-range", "is no moment of the calendar") from None


def _uuid(text: str, spec: ParameterSpec) -> str:
    if not _UUID.match(text):
        raise BadValue("wrong-type", "is not a lower-case UUID")
    return text


def _duration(text: str, spec: ParameterSpec) -> str:
    if len(text) > 60 or not _DURATION.match(text):
        raise BadValue("wrong-type", "is not a duration like P1DT2H3M")
    try:
        return duration_text(_to_timedelta(text))
    except OverflowError:
        raise BadValue("out-of-range", f"is longer than {timedelta.max.days} days") from None


def duration_text(span: timedelta) -> str:
    """Return a duration as ISO 8601 text that Postgres reads, the same for equal durations."""
    sign = "-" if span < timedelta(0) else ""
    seconds, micros = divmod(abs(span) // timedelta(microseconds=1), 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    second = f"{seconds}.{micros:06}" if micros else str(seconds)
    # Postgres takes no sign before the P, only one before each number.
    parts = ((str(days), "D"), (str(hours), "H"), (str(minutes), "M"), (second, "S"))
    shown = [f"{sign}{number}{unit}" if number != "0" else "" for number, unit in parts]
    time = "".join(shown[1:])
    return f"P{shown[0]}T{time}" if time else f"P{shown[0] or 'T0S'}"


def _to_timedelta(text: str) -> timedelta:
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(text)
    days, hours, minutes, seconds = (Decimal(part or 0) for part in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    span = timedelta(microseconds=int(total * 1_000_000))
    return -span if text.startswith("-") else span


def _kind(
    name: str,
    pg_type: str,
    from_text: Callable[[str, ParameterSpec], str],
    in_json: str,
    to_python: Callable[[str], Any],
    **schema: Any,
) -> ValueKind:
    return ValueKind(name, pg_type, from_text, in_json, to_python, tuple(schema.items()))


KINDS: Mapping[type, ValueKind] = {
    int: _kind("an integer", "bigint", _integer, "either", int, type="string", format="int64"),
    str: _kind("text", "text", _text, "text", str, type="string"),
    bool: _kind("a boolean", "boolean", _boolean, "boolean", "true".__eq__, type="boolean"),
    float: _kind("a number", "float8", _float, "number", float, type="number"),
    Decimal: _kind(
        "a decimal", "numeric", _decimal, "text", Decimal, type="string", format="decimal"
    ),
    date: _kind("a date", "date", _date, "text", date.fromisoformat, type="string", format="date"),
    datetime: _kind(
        "a date-time",
        "timestamptz",
        _datetime,
        "text",
        datetime.fromisoformat,
        type="string",
        format="date-time",
    ),
    UUID: _kind("a UUID", "uuid", _uuid, "text", UUID, type="string", format="uuid"),
    timedelta: _kind(
        "a duration",
        "interval",
        _duration,
        "text",
        _to_timedelta,
        type="string",
        format="duration",
    ),
}
INT32: ValueKind = _kind(
    "an integer", "bigint", _integer, "number", int, type="integer", format="int32"
)


def canonical_text(kind: ValueKind, value: Any) -> str:
    """Return the canonical text of a Python value, as of a default in a signature."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, int | str | Decimal | UUID):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, timedelta):
        return duration_text(value)
    raise DefinitionError(
        "unsupported-default",
        f"a default of type {type(value).__name__} for {kind.name}",
        fix="use None and decide inside the function",
    )


def without_none(hint: Any) -> tuple[Any, bool]:
    """Return an annotation without ``| None``, and whether it had that."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        kept = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if len(kept) == 1:
            return kept[0], True
    return hint, False
