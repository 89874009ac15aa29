"""The short way for requests without a flaw: most are, and owe nothing to lists of errors.

Whatever is not plainly right is left to ``requests``, which says what is wrong with it. Invariant:
where this gives an answer, ``RequestReader.read`` gives the same one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

import msgspec

from modeldefs.kit.parameters import (
    INT32,
    KINDS,
    SAFE_INTEGER_MAX,
    BadValue,
    NumberToken,
    ParameterSpec,
)
from modeldefs.kit.requests import RequestReader

LIMIT_DIGITS_MAX = 6
INTEGER_DIGITS_MAX = 19
_NOUGHT = ord("0")


def _not_finite(token: str) -> NoReturn:
    raise ValueError(token)


# Made once: making one costs as much as reading a short body.
_read_json = json.JSONDecoder(
    object_pairs_hook=list,
    parse_int=NumberToken,
    parse_float=NumberToken,
    parse_constant=_not_finite,
).decode


def pairs_of(body: bytes) -> Any:
    """Return a JSON text with objects as lists of pairs, numbers as tokens; None if it is none."""
    try:
        return _read_json(body.decode())
    except (ValueError, RecursionError):
        return None


# Knows neither doubled members nor how a number was written; both are looked at beside it.
_read_flat = msgspec.json.Decoder(dict[str, str | int | bool]).decode


class QuickRequest(msgspec.Struct):
    """The parameters of a request: canonical texts by name, which are present, rows wanted."""

    values: dict[str, Any]
    mask: int
    limit: int


class QuickRequests:
    """Reads the requests of one endpoint. Made once; holds no state of a request."""

    __slots__ = (
        "_by_leaf", "_by_name", "_by_text", "_defaults", "_limit", "_limit_max", "_required",
    )  # fmt: skip

    def __init__(self, reader: RequestReader) -> None:
        parameters = reader.endpoint.parameters
        self._by_name = {
            spec.name.encode(): (spec.name, url_reader(spec), 1 << bit)
            for bit, spec in enumerate(parameters)
            if not spec.is_list
        }
        self._by_text = {
            spec.name: (spec.text_of_json, 1 << bit)
            for bit, spec in enumerate(parameters)
            if not spec.is_list
        }
        self._by_leaf = {
            spec.name: (leaf_reader(spec), 1 << bit)
            for bit, spec in enumerate(parameters)
            if not spec.is_list
        }
        self._required = sum(1 << bit for bit, spec in enumerate(parameters) if spec.required)
        self._defaults = [
            (1 << bit, spec.name, [spec.default] if spec.is_list else spec.default)
            for bit, spec in enumerate(parameters)
            if spec.default is not None
        ]
        self._limit = reader.limit_default
        self._limit_max = reader.limit_max if reader.takes_limit else 0

    def read_url(self, query: bytes) -> QuickRequest | None:
        """Return what a URL asks for; None if that takes a closer look."""
        values: dict[str, Any] = {}
        mask, limit = 0, 0
        by_name = self._by_name
        for pair in query.split(b"&") if query else ():
            raw_name, _, text = pair.partition(b"=")
            known = by_name.get(raw_name)
            if known is None:
                if raw_name != b"limit" or limit:
                    return None
                limit = self._limit_of(text)
                if not limit:
                    return None
                continue
            name, read, bit = known
            value = read(text)
            if value is None or mask & bit:
                return None
            mask |= bit
            values[name] = value
        return self._whole(values, mask, limit or self._limit)

    def read_body(self, body: bytes) -> QuickRequest | None:
        """Return what a flat JSON object asks for; None if that takes a closer look."""
        if b"[" in body or body.count(b"{") != 1 or body[:1] != b"{":
            return None
        return (self._read_leaves(body) if b"\\" not in body else None) or self._read_pairs(body)

    def _read_leaves(self, body: bytes) -> QuickRequest | None:
        """Read a body without escapes, of text, integers and booleans."""
        try:
            members = _read_flat(body)
        except (msgspec.DecodeError, ValueError):  # not UTF-8, or thousands of digits
            return None
        values: dict[str, Any] = {}
        mask, texts = 0, len(members)
        by_leaf = self._by_leaf
        for name, value in members.items():
            known = by_leaf.get(name)
            if known is None:
                return None
            texts += type(value) is str
            mask |= known[1]
            try:
                text = known[0](value)
            except BadValue:
                return None
            if text is None:
                return None
            values[name] = text
        # Two quotes for each name and each text; a member that came twice has more.
        if body.count(b'"') != 2 * texts:
            return None
        return self._whole(values, mask, self._limit)

    def _read_pairs(self, body: bytes) -> QuickRequest | None:
        pairs = pairs_of(body)
        if pairs is None:
            return None
        values: dict[str, Any] = {}
        mask = 0
        by_text = self._by_text
        for name, value in pairs:
            known = by_text.get(name)
            if known is None or value is None or mask & known[1]:
                return None
            mask |= known[1]
            try:
                values[name] = known[0](value)
            except BadValue:
                return None
        return self._whole(values, mask, self._limit)

    def _whole(self, values: dict[str, Any], mask: int, limit: int) -> QuickRequest | None:
        if mask & self._required != self._required:
            return None
        for bit, name, default in self._defaults:
            if not mask & bit:
                values[name] = default
                mask |= bit
        return QuickRequest(values, mask, limit)

    def _limit_of(self, text: bytes) -> int:
        if not text.isdigit() or len(text) > LIMIT_DIGITS_MAX or text[:1] == b"0":
            return 0
        limit = int(text)
        return limit if limit <= self._limit_max else 0


def url_reader(spec: ParameterSpec) -> Callable[[bytes], str | None]:
    """Return what makes a URL's value its canonical text; it gives None for what is wrong."""
    text_of, low, high = spec.text_of, spec.low, spec.high

    def read(value: bytes) -> str | None:
        if b"%" in value or b"+" in value:
            value = unquote_to_bytes(value.replace(b"+", b" "))
        try:
            return text_of(value.decode())
        except (BadValue, UnicodeDecodeError):
            return None

    def read_integer(value: bytes) -> str | None:
        # Digits without a nought before them are canonical as they stand.
        if value.isdigit() and value[0] != _NOUGHT and len(value) <= INTEGER_DIGITS_MAX:
            text = value.decode()
            return text if low <= int(text) <= high else None
        return read(value)

    return read_integer if spec.kind in (KINDS[int], INT32) and not spec.choices else read


def leaf_reader(spec: ParameterSpec) -> Callable[[Any], str | None]:
    """Return what makes a JSON leaf's canonical text; it gives None for what it leaves alone."""
    carried, text_of, is_free = spec.kind.in_json, spec.text_of, not spec.choices
    takes_text, takes_integer = carried in ("text", "either"), carried in ("number", "either")
    low, high = max(spec.low, -SAFE_INTEGER_MAX), min(spec.high, SAFE_INTEGER_MAX)
    length_max = spec.length_max

    def read_text(value: Any) -> str | None:
        return value if type(value) is str and len(value) <= length_max else None

    def read_integer(value: Any) -> str | None:
        if type(value) is int:
            return str(value) if low <= value <= high else None
        return text_of(value) if takes_text and type(value) is str else None

    def read(value: Any) -> str | None:
        if type(value) is str:
            return text_of(value) if takes_text else None
        if type(value) is int:
            is_safe = -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX
            return text_of(str(value)) if takes_integer and is_safe else None
        if type(value) is bool and carried == "boolean":
            return "true" if value else "false"
        return None

    if is_free and spec.kind is KINDS[str]:
        return read_text  # a NUL cannot stand in JSON without an escape
    return read_integer if is_free and spec.kind in (KINDS[int], INT32) else read
