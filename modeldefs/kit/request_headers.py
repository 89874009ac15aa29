"""The few headers that decide how a data request is read.

All others are of no meaning here; a header that is understood and wrong is refused, never guessed.
"""

from __future__ import annotations

from modeldefs.wire.problems import InputError, InvalidRequest

TIMEOUT_DEFAULT_MS = 2_000
TIMEOUT_MAX_MS = 30_000


class RequestHeaders:
    """The few headers that decide how a data request is read."""

    __slots__ = ("accepts_json", "content_type", "has_body", "is_encoded", "key", "timeout_ms")

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.key: bytes | None = None
        self.content_type: bytes | None = None
        self.has_body = False
        self.is_encoded = False
        self.accepts_json = True
        self.timeout_ms = TIMEOUT_DEFAULT_MS
        for name, value in headers:
            if name == b"authorization" or (name == b"x-api-key" and self.key is None):
                self.key = value
            elif name == b"content-type":
                self.content_type = value
            elif name == b"content-length":
                self.has_body = value != b"0"
            elif name == b"transfer-encoding":
                self.has_body = True
            elif name == b"content-encoding":
                self.is_encoded = True
            elif name == b"accept":
                self.accepts_json = _accepts_json(value)
            elif name == b"shardpoint-timeout-ms":
                self.timeout_ms = _timeout_ms(value)


def _accepts_json(accept: bytes) -> bool:
    kinds = [part.partition(b";") for part in accept.lower().split(b",")]
    return any(
        kind.strip() in (b"", b"*/*", b"application/*", b"application/json")
        and options.replace(b" ", b"") not in (b"q=0", b"q=0.0")
        for kind, _, options in kinds
    )


def _timeout_ms(value: bytes) -> int:
    if value.isdigit() and len(value) <= 6 and 1 <= int(value) <= TIMEOUT_MAX_MS:
        return int(value)
    detail = f"is not between 1 and {TIMEOUT_MAX_MS}"
    raise InvalidRequest(
        errors=[InputError("out-of-range", detail, parameter="Shardpoint-Timeout-Ms")]
    )
