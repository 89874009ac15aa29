"""The few headers that decide how a data request is read.

All others are of no meaning here; a header that is understood and wrong is refused, never guessed.
"""

from __future__ import annotations

import re

from modeldefs.kit.preferences import Preferences, read_preferences
from modeldefs.wire.http1 import HttpRequest
from modeldefs.wire.problems import InputError, InvalidRequest

TIMEOUT_DEFAULT_MS = 2_000
TIMEOUT_MAX_MS = 30_000
JSON_TYPE = b"application/json"
LINES_TYPE = b"application/jsonl"
LIST_BYTES_MAX = 2_048
_LISTED = frozenset(
    {
        b"authorization", b"x-api-key", b"content-type", b"accept", b"idempotency-key", b"prefer",
        b"shardpoint-timeout-ms", b"traceparent", b"if-match", b"if-none-match", b"api-version",
        b"shardpoint-contract",
    }
)  # fmt: skip
_WEIGHT = re.compile(rb"[01](?:\.[0-9]{0,3})?")
_IDEMPOTENCY_KEY = re.compile(rb"[!-~]{1,255}")


class RequestHeaders:
    """The few headers that decide how a data request is read."""

    __slots__ = (
        "_accept",
        "_prefer",
        "_timeout",
        "accepts_json",
        "api_version",
        "content_type",
        "contract",
        "has_body",
        "idempotency_key",
        "if_match",
        "if_none_match",
        "is_conditional",
        "is_encoded",
        "is_plain",
        "is_settled",
        "is_traced",
        "key",
        "preferences",
        "prefers_lines",
        "timeout_ms",
        "traceparent",
        "wants_timing",
    )  # fmt: skip

    accepts_json: bool
    prefers_lines: bool
    timeout_ms: int
    preferences: Preferences | None
    is_plain: bool

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.has_body = False
        self.is_encoded = False
        self.wants_timing = False
        # Lines of one name are one list (RFC 9110, 5.3). Who took the first or the last of two
        # would take another than a proxy, or Django, did; two keys or lengths of time are none.
        listed: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _LISTED:
                listed[name] = listed[name] + b"," + value if name in listed else value
            elif name == b"content-length":
                self.has_body = value != b"0"
            elif name == b"transfer-encoding":
                self.has_body = True
            elif name == b"content-encoding":
                self.is_encoded = True
            elif name == b"shardpoint-timing":
                self.wants_timing = value == b"1"
        get = listed.get
        self.content_type = get(b"content-type")
        self.idempotency_key = get(b"idempotency-key")
        self.traceparent = get(b"traceparent")
        self.if_match = get(b"if-match")
        self.if_none_match = get(b"if-none-match")
        self.is_conditional = not (self.if_match is None and self.if_none_match is None)
        self.api_version = get(b"api-version")
        self.contract = get(b"shardpoint-contract")
        self.is_traced = self.wants_timing or self.traceparent is not None
        authorization = get(b"authorization")
        self.key = get(b"x-api-key") if authorization is None else authorization
        self._accept = get(b"accept") or b""
        self._prefer = get(b"prefer")
        self._timeout = get(b"shardpoint-timeout-ms")
        self.is_settled = self.is_plain = False

    def settle(self) -> None:
        """Read what costs something or may be refused: only for who has a key.

        Raises:
            InvalidRequest: A header that is understood is wrong, or too long to be read.
        """
        for name, value in (("Accept", self._accept), ("Prefer", self._prefer or b"")):
            if len(value) > LIST_BYTES_MAX:
                detail = f"has more than {LIST_BYTES_MAX} bytes"
                raise InvalidRequest(errors=[InputError("too-long", detail, parameter=name)])
        self.accepts_json, self.prefers_lines = _negotiated(self._accept)
        self.timeout_ms = _timeout_ms(self._timeout)
        self.preferences = read_preferences(self._prefer)
        # Nothing in them asks for a closer look at a request without a body.
        is_versioned = not (self.api_version is None and self.contract is None)
        self.is_plain = self.accepts_json and not (
            self.has_body
            or self.is_encoded
            or self.prefers_lines
            or self._prefer is not None
            or self.is_conditional
            or is_versioned
            or self.is_traced
        )
        self.is_settled = True


def idempotency_key_of(headers: RequestHeaders, beside: bytes | None = None) -> str:
    """Return the key that a write came with; "" if it has none.

    Args:
        beside: The key, where the headers were read without it.

    Raises:
        InvalidRequest: It is no key: empty, longer than 255, or not visible ASCII.
    """
    key = headers.idempotency_key if beside is None else beside
    if key is None:
        return ""
    if _IDEMPOTENCY_KEY.fullmatch(key):
        return key.decode()
    detail = "is not 1 to 255 visible ASCII characters"
    raise InvalidRequest(errors=[InputError("wrong-type", detail, parameter="Idempotency-Key")])


def _negotiated(accept: bytes) -> tuple[bool, bool]:
    """Return whether JSON will do, and whether JSON lines are liked better (RFC 9110, 12.5.1).

    A wildcard means JSON. Of two names that weigh the same JSON is answered.
    """
    weights: dict[bytes, float] = {}
    for part in accept.lower().split(b","):
        kind, *options = (each.strip() for each in part.split(b";"))
        if kind:
            weights[kind] = max(weights.get(kind, 0.0), _weight(options))
    if not weights:
        return True, False
    rest = weights.get(b"application/*", weights.get(b"*/*", 0.0))
    json, lines = weights.get(JSON_TYPE, rest), weights.get(LINES_TYPE, rest)
    is_better = lines > json or (lines == json and JSON_TYPE not in weights)
    return json > 0, lines > 0 and (json == 0 or (LINES_TYPE in weights and is_better))


def _weight(options: list[bytes]) -> float:
    for option in options:
        name, _, value = option.partition(b"=")
        if name.strip() == b"q":
            return float(value) if _WEIGHT.fullmatch(value.strip()) else 1.0
    return 1.0


def _timeout_ms(value: bytes | None) -> int:
    if value is None:
        return TIMEOUT_DEFAULT_MS
    if value.isdigit() and len(value) <= 6 and 1 <= int(value) <= TIMEOUT_MAX_MS:
        return int(value)
    detail = f"is not between 1 and {TIMEOUT_MAX_MS}"
    raise InvalidRequest(
        errors=[InputError("out-of-range", detail, parameter="Shardpoint-Timeout-Ms")]
    )


def headers_of(request: HttpRequest) -> RequestHeaders:
    """Return what the headers say, read once for all requests with the same ones."""
    known = request.known_head
    if known is None:
        return RequestHeaders(request.headers)
    if known.facts is None:
        known.facts = RequestHeaders(known.headers)
    read: RequestHeaders = known.facts
    return read
