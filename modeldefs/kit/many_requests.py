"""Reading a batch: one body with many items, each held to what a request for one is held to.

What comes out is a column per parameter, in the order of the items: the canonical texts that a
single write would carry, None where an item lacks a parameter or gives null, which a write does
not tell apart. An entry of ``errors`` points at its place: ``/items/17/email``.

Invariant: where the short way gives an answer, the long way gives the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from modeldefs.kit.json_bodies import BATCH_VALUES_MAX, BODY_BRACKETS_MAX, Members, parsed_body
from modeldefs.kit.many import ITEMS_MAX, ManyEndpoint
from modeldefs.kit.parameters import BadValue
from modeldefs.kit.quick_requests import QuickRequest, leaf_reader, pairs_of
from modeldefs.kit.request_headers import JSON_TYPE
from modeldefs.kit.requests import ReadRequest, RequestReader, media_type, summary
from modeldefs.wire.problems import InputError, InvalidRequest, UnsupportedMediaType

ERRORS_MAX = 100
ITEMS = "items"

_ABSENT: Any = object()
# Knows neither doubled members nor how a number was written; both are looked at beside it.
_read_flat = msgspec.json.Decoder(dict[str, list[dict[str, str | int | bool | None]]]).decode


@dataclass(slots=True)
class ManyReader:
    """Reads requests for one batch endpoint. Made once; holds no state of a request."""

    endpoint: ManyEndpoint
    takes_limit: bool = False
    _one: RequestReader = field(init=False)

    def __post_init__(self) -> None:
        self._one = RequestReader(self.endpoint.single)

    def read(
        self, *, query: bytes, body: bytes, content_type: bytes | None, has_body: bool
    ) -> ReadRequest:
        """Return the columns of a body's items.

        Raises:
            UnsupportedMediaType: There is a body that is not JSON.
            InvalidRequest: With one entry per breach; the first ``ERRORS_MAX`` are told.
        """
        errors: list[InputError] = []
        if query.strip(b"&"):
            errors.append(InputError("unknown-parameter", "takes its items in the body alone"))
        items: list[Any] = []
        if has_body or body:
            if media_type(content_type) != JSON_TYPE:
                raise UnsupportedMediaType
            items = self._items(parsed_body(body, values_max=BATCH_VALUES_MAX), errors)
        else:
            errors.append(InputError("missing", "is required", parameter=ITEMS))
        rows: list[list[Any]] = []
        for place, item in enumerate(items):
            rows.append(self._row(item, f"/{ITEMS}/{place}", errors))
            if len(errors) >= ERRORS_MAX:
                break
        if errors:
            told = errors[:ERRORS_MAX]
            detail = summary(told)
            if len(errors) >= ERRORS_MAX:
                detail += f"; reading ended at the first {ERRORS_MAX}"
            raise InvalidRequest(detail, errors=told)
        columns = zip(*rows, strict=True)
        names = (spec.name for spec in self.endpoint.parameters)
        return ReadRequest({name: list(c) for name, c in zip(names, columns, strict=True)}, 0)

    def _items(self, document: Any, errors: list[InputError]) -> list[Any]:
        if not isinstance(document, Members):
            error = InputError("malformed-body", "is not a JSON object", pointer="")
            raise InvalidRequest(errors=[error])
        found: dict[str, Any] = {}
        self._one.read_members(document, found, errors, known=(ITEMS,))
        if ITEMS not in found:
            if not any(error.parameter == ITEMS for error in errors):
                errors.append(InputError("missing", "is required", parameter=ITEMS))
            return []
        items = found[ITEMS]
        wrong = None
        if not isinstance(items, list):
            wrong = InputError("wrong-type", "is not an array", ITEMS, pointer=f"/{ITEMS}")
        elif not items:
            wrong = InputError("out-of-range", "has no items", ITEMS, pointer=f"/{ITEMS}")
        elif len(items) > ITEMS_MAX:
            told = f"has more than {ITEMS_MAX} items"
            wrong = InputError("too-long", told, ITEMS, pointer=f"/{ITEMS}")
        if wrong is None:
            return list(items)
        errors.append(wrong)
        return []

    def _row(self, item: Any, at: str, errors: list[InputError]) -> list[Any]:
        if not isinstance(item, Members):
            errors.append(InputError("wrong-type", "is not an object", pointer=at))
            return []
        own: list[InputError] = []
        found: dict[str, Any] = {}
        self._one.read_members(item, found, own, at=at)
        values = self._one.completed(found, own, at=at)
        errors += own
        return [values.get(spec.name) for spec in self.endpoint.parameters]


class QuickMany:
    """Reads the batches without a flaw, as ``QuickRequests`` does single requests."""

    __slots__ = ("_by_name", "_columns", "_defaults", "_mask", "_names", "_required")

    def __init__(self, endpoint: ManyEndpoint) -> None:
        parameters = endpoint.parameters
        self._names = [spec.name for spec in parameters]
        self._by_name = {
            spec.name: (place, spec.text_of_json, 1 << place, spec.nullable)
            for place, spec in enumerate(parameters)
        }
        self._columns = [(spec, leaf_reader(spec)) for spec in parameters]
        self._required = sum(1 << place for place, s in enumerate(parameters) if s.required)
        self._defaults = [spec.default for spec in parameters]
        self._mask = (1 << len(parameters)) - 1

    def read_url(self, query: bytes) -> None:
        """Return None: a URL holds no batch."""

    def read_body(self, body: bytes) -> QuickRequest | None:
        """Return the columns of a body's items; None if that takes a closer look."""
        # As many brackets as items at least: what has more is refused, and soon.
        if body.count(b"{") > BODY_BRACKETS_MAX:
            return None
        return (self._read_leaves(body) if b"\\" not in body else None) or self._read_pairs(body)

    def _read_leaves(self, body: bytes) -> QuickRequest | None:
        """Read a body without escapes, of text, integers, booleans and null."""
        try:
            document = _read_flat(body)
        except (msgspec.DecodeError, ValueError):  # not UTF-8, or thousands of digits
            return None
        items = document.get(ITEMS, [])
        if len(document) != 1 or not 1 <= len(items) <= ITEMS_MAX:
            return None
        values: dict[str, Any] = {}
        members, texts = 0, 1  # the name of the items is one
        for spec, read in self._columns:
            name = spec.name
            found = [item.get(name, _ABSENT) for item in items]
            try:
                column = [read(value) for value in found]
            except BadValue:
                return None
            if None in column:
                for place, value in enumerate(found):
                    if value is _ABSENT and not spec.required:
                        column[place] = spec.default
                    elif column[place] is None and not (value is None and spec.nullable):
                        return None
            members += len(found) - found.count(_ABSENT)
            texts += sum(type(value) is str for value in found)
            values[name] = column
        # No member was left over; and none came twice, since it would have brought its quotes.
        if members != sum(map(len, items)) or body.count(b'"') != 2 * (members + texts):
            return None
        return QuickRequest(values, self._mask, 0)

    def _read_pairs(self, body: bytes) -> QuickRequest | None:
        document = pairs_of(body)
        # Members are tuples, elements are not: so an object is told from an array.
        if type(document) is not list or len(document) != 1 or type(document[0]) is not tuple:
            return None
        name, items = document[0]
        if name != ITEMS or type(items) is not list or not 1 <= len(items) <= ITEMS_MAX:
            return None
        rows = []
        for item in items:
            row = self._row(item)
            if row is None:
                return None
            rows.append(row)
        columns = zip(*rows, strict=True)
        values = {name: list(c) for name, c in zip(self._names, columns, strict=True)}
        return QuickRequest(values, self._mask, 0)

    def _row(self, item: Any) -> list[Any] | None:
        if type(item) is not list or not item or type(item[0]) is not tuple:
            return None
        row = self._defaults.copy()
        mask = 0
        by_name = self._by_name
        for name, value in item:
            known = by_name.get(name)
            if known is None or mask & known[2]:
                return None
            place, text_of, bit, nullable = known
            mask |= bit
            if value is None and nullable:
                row[place] = None
                continue
            try:
                row[place] = text_of(value)
            except BadValue:
                return None
        return row if mask & self._required == self._required else None
