"""Header blocks that were read before: a client sends the same one with every request.

What a parser makes of a header block depends on its bytes alone. So a block that was once read
whole, checked and found plain (a length or no body, nothing to upgrade, expect or close) is known
by its bytes from then on, and only the request line in front of it is new. A line that is not of
the plainest form is left to the parser, and so is every block that was not seen before.

Invariant: a request read by a known head equals what the parser would have made of its bytes.
"""

from __future__ import annotations

import re
from typing import Any

from modeldefs.wire.http1 import Headers

KNOWN_MAX = 1_024
# A block with one of these is new with every request: to know it would only push out others.
PASSING = frozenset((b"idempotency-key", b"traceparent", b"x-request-id"))
BLOCK_BYTES_MAX = 2_048
# Every visible character but "#": the parser takes them all, as they are.
REQUEST_LINE = re.compile(rb'(GET|POST|QUERY|HEAD) (/[!"$-~]*) HTTP/1\.1')


class KnownHead:
    """One header block and what was made of it."""

    __slots__ = ("facts", "headers", "length")

    def __init__(self, headers: Headers, length: int) -> None:
        self.headers = headers
        self.length = length  # of the body
        self.facts: Any = (
            None  # what the handler made of the headers, if it wants to know it again
        )


class KnownHeads:
    """The header blocks that the connections of one worker have sent."""

    __slots__ = ("by_block",)

    def __init__(self) -> None:
        self.by_block: dict[bytes, KnownHead] = {}

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
        if len(self.by_block) >= KNOWN_MAX:
            self.by_block.clear()
        self.by_block[block] = KnownHead(headers, length)
