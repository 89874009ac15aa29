"""Header blocks that were read before: a client sends the same one with every request.

What a parser makes of a header block depends on its bytes alone. So a block that was once read
whole, checked and found plain (a length or no body, nothing to upgrade, expect or close) is known
by its bytes from then on, and only the request line in front of it is new. A line that is not of
the plainest form is left to the parser, and so is every block that was not seen before.

An Idempotency-Key is new with every write; so a block with one is known by what stands before and
behind its line, and the key is put back where it was.

Invariant: a request read by a known head equals what the parser would have made of its bytes.
"""

from __future__ import annotations

import re
from typing import Any

from modeldefs.wire.http1 import Headers

KNOWN_MAX = 1_024
# A block with one of these is new with every request: to know it would only push out others.
PASSING = frozenset((b"traceparent", b"x-request-id"))
KEY = b"idempotency-key"
# A value without a space at either end: the parser takes it as it is.
_KEY_LINE = re.compile(rb"\r\n[Ii]dempotency-[Kk]ey: ([!-~]{1,255})(?=\r\n|\Z)")
BLOCK_BYTES_MAX = 2_048
# Method, path, query. Every visible character but "#": the parser takes them all, as they are.
REQUEST_LINE = re.compile(rb'(GET|POST|QUERY|HEAD) (/[!"$->@-~]*)(?:\?([!"$-~]*))? HTTP/1\.1')


class KnownHead:
    """One header block and what was made of it."""

    __slots__ = ("_key_place", "facts", "headers", "length")

    def __init__(self, headers: Headers, length: int, key_place: int = 0) -> None:
        self.headers = headers  # without the key
        self.length = length  # of the body
        # What the handler made of the headers, if it wants to know it again.
        self.facts: Any = None
        self._key_place = key_place

    def headers_with(self, key: bytes) -> Headers:
        """Return the headers with this key among them."""
        at = self._key_place
        return [*self.headers[:at], (KEY, key), *self.headers[at:]]


class KnownHeads:
    """The header blocks that the connections of one worker have sent."""

    __slots__ = ("by_block", "by_rest")

    def __init__(self) -> None:
        self.by_block: dict[bytes, KnownHead] = {}
        self.by_rest: dict[tuple[bytes, bytes], KnownHead] = {}  # around the line of the key

    def keyed(self, block: bytes) -> tuple[KnownHead, bytes] | None:
        """Return the head of a block that has a key, and the key."""
        line = _KEY_LINE.search(block)
        if line is None:
            return None
        head = self.by_rest.get((block[: line.start()], block[line.end() :]))
        return None if head is None else (head, line[1])

    def remember(self, data: bytes, headers: Headers, length: int) -> None:
        """Know the header block of this request, if these bytes are one plain request."""
        line_end = data.find(b"\r\n")
        end = data.find(b"\r\n\r\n", line_end)
        block = data[line_end:end]
        if (
            line_end < 0
            or end + 4 + length != len(data)
            or len(block) > BLOCK_BYTES_MAX
            or REQUEST_LINE.fullmatch(data, 0, line_end) is None
            or any(name in PASSING for name, _ in headers)
        ):
            return
        # Clients choose the blocks: forget rather than grow.
        if len(self.by_block) + len(self.by_rest) >= KNOWN_MAX:
            self.by_block.clear()
            self.by_rest.clear()
        keys = [(place, value) for place, (name, value) in enumerate(headers) if name == KEY]
        if not keys:
            self.by_block[block] = KnownHead(headers, length)
            return
        line = _KEY_LINE.search(block)
        if len(keys) > 1 or line is None or line[1] != keys[0][1]:
            return
        place = keys[0][0]
        rest = (block[: line.start()], block[line.end() :])
        self.by_rest[rest] = KnownHead(headers[:place] + headers[place + 1 :], length, place)
