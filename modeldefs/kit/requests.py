"""Reading a request for an endpoint: strict, complete, and the same on both sites.

Every breach of the contract becomes an entry of one ``invalid-request``; nothing is coerced,
clamped or ignored. An unknown parameter is refused above all: were it ignored, a misspelt filter
would answer with everybody.
"""

from __future__ import annotations

import difflib
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from modeldefs.kit.endpoints import TOP_MAX, Endpoint
from modeldefs.kit.json_bodies import Members, parsed_body
from modeldefs.kit.parameters import BadValue, NumberToken, ParameterSpec
from modeldefs.kit.request_headers import JSON_TYPE
from modeldefs.wire.problems import InputError, InvalidRequest, UnsupportedMediaType

LIST_LENGTH_MAX = 1_000
PARAMETERS_MAX = 2_000
CURSOR_LENGTH_MAX = 2_000
EXPORT_ROWS_MAX = 999_999_999

_ABSENT: Final = object()

Text = str | list[str] | None


@dataclass(slots=True)
class ReadRequest:
    """A request that kept the contract: canonical texts by name, and the page it asks for."""

    values: dict[str, Text]
    limit: int
    after: str | None = None


@dataclass(slots=True)
class RequestReader:
    """Reads requests for one endpoint. Made once; holds no state of a request."""

    endpoint: Endpoint[Any, Any]
    specs: dict[str, ParameterSpec] = field(init=False)
    takes_limit: bool = field(init=False)
    takes_after: bool = field(init=False)
    limit_default: int = field(init=False)
    limit_max: int = field(init=False)

    def __post_init__(self) -> None:
        endpoint, options = self.endpoint, self.endpoint.options
        self.specs = endpoint.by_name
        self.takes_after = endpoint.shape == "page"
        self.takes_limit = self.takes_after or (
            endpoint.shape == "groups" and options.top is not None
        )
        is_top = endpoint.shape == "groups"
        self.limit_default = (options.top or 0) if is_top else options.limit
        self.limit_max = max(TOP_MAX, options.top or 0) if is_top else options.limit_max

    def read(
        self, *, query: bytes, body: bytes, content_type: bytes | None, has_body: bool
    ) -> ReadRequest:
        """Return what a request asks for, from its URL and its body.

        Raises:
            UnsupportedMediaType: There is a body that is not JSON.
            InvalidRequest: With one entry per breach.
        """
        errors: list[InputError] = []
        found: dict[str, Any] = {}
        if query:
            self._read_url(query, found, errors)
        if has_body or body:
            if media_type(content_type) != JSON_TYPE:
                raise UnsupportedMediaType
            self._read_body(body, found, errors)
        asked = ReadRequest({}, self.limit_default)
        self._read_page(found, asked, errors)
        asked.values = self.completed(found, errors)
        if errors:
            raise InvalidRequest(summary(errors), errors=errors)
        return asked

    def completed(
        self, found: dict[str, Any], errors: list[InputError], *, at: str = ""
    ) -> dict[str, Any]:
        """Return the parameters with the defaults of those that are absent.

        ``at`` is where the body's members stand, if that is not the top: entries then point there.
        """
        values: dict[str, Any] = {}
        for name, spec in self.specs.items():
            value = found.get(name, _ABSENT)
            if value is not _ABSENT:
                values[name] = value
            elif spec.required and not any(e.parameter == name for e in errors):
                pointer = at + _pointer(name) if at else None
                errors.append(InputError("missing", "is required", name, pointer=pointer))
            elif spec.default is not None:
                values[name] = [spec.default] if spec.is_list else spec.default
        return values

    # -- the URL ---------------------------------------------------------------------------------

    def _read_url(self, query: bytes, found: dict[str, Any], errors: list[InputError]) -> None:
        pairs = query.split(b"&")
        if len(pairs) > PARAMETERS_MAX:
            errors.append(InputError("out-of-range", f"more than {PARAMETERS_MAX} parameters"))
            return
        for pair in pairs:
            if not pair:
                continue
            raw_name, _, raw_value = pair.partition(b"=")
            name, value = _decoded(raw_name), _decoded(raw_value)
            if name is None or value is None:
                shown = raw_name.decode("ascii", "replace")[:100]
                errors.append(InputError("bad-utf8", "is not UTF-8", parameter=shown))
                continue
            self._take_text(name, value, found, errors)

    def _take_text(
        self, name: str, value: str, found: dict[str, Any], errors: list[InputError]
    ) -> None:
        spec = self.specs.get(name)
        if spec is None and not self._is_reserved(name):
            errors.append(self._unknown(name))
            return
        if name in found and (spec is None or not spec.is_list):
            errors.append(InputError("duplicate", "is given more than once", parameter=name))
            return
        if spec is None:
            found[name] = value
            return
        try:
            text = spec.text_of(value)
        except BadValue as bad:
            errors.append(InputError(bad.code, bad.detail, parameter=name))
            found.setdefault(name, [] if spec.is_list else "")
            return
        if spec.is_list:
            found.setdefault(name, []).append(text)
        else:
            found[name] = text

    # -- the body --------------------------------------------------------------------------------

    def _read_body(self, body: bytes, found: dict[str, Any], errors: list[InputError]) -> None:
        document = parsed_body(body)
        if not isinstance(document, Members):
            raise InvalidRequest(
                errors=[InputError("malformed-body", "is not a JSON object", pointer="")]
            )
        self.read_members(document, found, errors)

    def read_members(
        self,
        document: Members,
        found: dict[str, Any],
        errors: list[InputError],
        *,
        at: str = "",
        known: Container[str] | None = None,
    ) -> None:
        """Read an object of the body into ``found``.

        Args:
            document: The object.
            found: Canonical texts by name, of what was read before too.
            errors: Where breaches go.
            at: Where the object stands in the body, as a pointer.
            known: Names whose values are taken as they are, in place of the parameters.
        """
        if len(document.pairs) > PARAMETERS_MAX:
            errors.append(
                InputError("out-of-range", f"has more than {PARAMETERS_MAX} members", pointer=at)
            )
            return
        errors.extend(_doubled(name, at) for name in sorted(document.doubled))
        for name, value in document.pairs:
            pointer = at + _pointer(name)
            if name in document.doubled:
                continue
            if name in found:
                errors.append(_doubled(name, at))
                continue
            if not _is_unicode(name):
                errors.append(
                    InputError("invalid-unicode", "is no name", pointer=_printable(pointer))
                )
                continue
            if known is not None and name in known:
                found[name] = value
                continue
            spec = self.specs.get(name) if known is None else None
            if spec is None:
                if self._is_reserved(name):
                    # A limit is a number in JSON: as a text it is of the wrong type.
                    is_text = name == "limit" and type(value) is str
                    found[name] = None if is_text else value
                else:
                    errors.append(self._unknown(name, pointer))
                continue
            self._take_json(spec, value, pointer, found, errors)

    def _take_json(
        self,
        spec: ParameterSpec,
        value: Any,
        pointer: str,
        found: dict[str, Any],
        errors: list[InputError],
    ) -> None:
        if value is None and spec.nullable:
            found[spec.name] = None
            return
        if not spec.is_list:
            self._take_leaf(spec, value, pointer, found, errors)
            return
        if not isinstance(value, list):
            errors.append(InputError("wrong-type", "is not an array", spec.name, pointer=pointer))
            found[spec.name] = []
            return
        if len(value) > LIST_LENGTH_MAX:
            errors.append(_too_many(spec.name))
            found[spec.name] = []
            return
        texts: dict[str, Any] = {}
        for place, item in enumerate(value):
            self._take_leaf(spec, item, f"{pointer}/{place}", texts, errors, key=str(place))
        found[spec.name] = list(texts.values())

    def _take_leaf(
        self,
        spec: ParameterSpec,
        value: Any,
        pointer: str,
        found: dict[str, Any],
        errors: list[InputError],
        *,
        key: str | None = None,
    ) -> None:
        try:
            found[key or spec.name] = spec.text_of_json(value)
        except BadValue as bad:
            errors.append(InputError(bad.code, bad.detail, spec.name, pointer=pointer))
            found[key or spec.name] = ""

    # -- the page --------------------------------------------------------------------------------

    def _is_reserved(self, name: str) -> bool:
        return (name == "limit" and self.takes_limit) or (name == "after" and self.takes_after)

    def _read_page(
        self, found: dict[str, Any], asked: ReadRequest, errors: list[InputError]
    ) -> None:
        for name, spec in self.specs.items():
            value = found.get(name)
            if spec.is_list and isinstance(value, list) and len(value) > LIST_LENGTH_MAX:
                errors.append(_too_many(name))
        limit = found.pop("limit", _ABSENT)
        if limit is not _ABSENT:
            self._read_limit(limit, asked, errors)
        after = found.pop("after", _ABSENT)
        if after is _ABSENT:
            return
        if not isinstance(after, str) or isinstance(after, NumberToken):
            errors.append(InputError("wrong-type", "is not a cursor", parameter="after"))
        elif len(after) > CURSOR_LENGTH_MAX:
            errors.append(InputError("too-long", "is longer than a cursor", parameter="after"))
        else:
            asked.after = after

    def _read_limit(self, limit: Any, asked: ReadRequest, errors: list[InputError]) -> None:
        text = limit if isinstance(limit, str) else ""
        if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
            errors.append(InputError("wrong-type", "is not a whole number", parameter="limit"))
        elif len(text) > 9 or int(text) > self.limit_max:
            errors.append(
                InputError("limit-too-large", f"is more than {self.limit_max}", parameter="limit")
            )
        elif int(text) < 1:
            errors.append(InputError("out-of-range", "is less than 1", parameter="limit"))
        else:
            asked.limit = int(text)

    def _unknown(self, name: str, pointer: str | None = None) -> InputError:
        near = difflib.get_close_matches(name[:100], self.specs, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        return InputError(
            "unknown-parameter",
            f"is not a parameter of this endpoint{hint}",
            name[:200],
            pointer[:200] if pointer else pointer,
        )


def export_reader(endpoint: Endpoint[Any, Any]) -> RequestReader:
    """Return the reader of requests for all rows of a page endpoint, 0 being no limit."""
    reader = RequestReader(endpoint)
    reader.limit_default, reader.limit_max = 0, EXPORT_ROWS_MAX
    return reader


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _doubled(name: str, at: str = "") -> InputError:
    shown = _printable(name)[:200]
    return InputError("duplicate", "is given more than once", shown, pointer=at + _pointer(shown))


def _too_many(name: str) -> InputError:
    return InputError("too-long", f"has more than {LIST_LENGTH_MAX} values", name)


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:200]


def summary(errors: Sequence[InputError]) -> str:
    """Return the detail of a problem with these entries."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{first.parameter or 'the body'} {first.detail}{more}"


def media_type(content_type: bytes | None) -> bytes:
    """Return the media type of a body, if its charset is none or UTF-8."""
    kind, _, options = (content_type or b"").lower().partition(b";")
    if options.strip() not in (b"", b"charset=utf-8", b'charset="utf-8"'):
        return b""
    return kind.strip()


def _decoded(raw: bytes) -> str | None:
    try:
        if b"%" in raw or b"+" in raw:
            return unquote_to_bytes(raw.replace(b"+", b" ")).decode()
        return raw.decode()
    except UnicodeDecodeError:
        return None
