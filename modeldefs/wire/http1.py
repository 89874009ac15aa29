"""What the HTTP protocol and the handler of the hot paths say to each other.

The protocol (``hot_protocol``) reads and checks bytes, the handler decides; between them go only
the values of this module. A handler is asked in the event loop and must never block it.
Every request that was read whole gets exactly one reply, in the order the requests came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from modeldefs.wire.known_heads import KnownHead

Headers = list[tuple[bytes, bytes]]


class HttpRequest(msgspec.Struct, eq=False):
    """One request, read whole and well-formed. A struct: one is made for every request."""

    method: bytes
    path: bytes  # as sent, percent-encoding and all, without the query
    query: bytes  # as sent, without the question mark
    headers: Headers  # names in lower case, in the order they came; shared, never to be changed
    body: bytes
    client_host: str  # the peer of the socket, "" on a unix socket
    # Shared by all requests with these headers: where to keep what was made of them.
    known_head: KnownHead | None = None
    # The Idempotency-Key among the headers, which the known head leaves out.
    key_beside: bytes | None = None

    @property
    def takes_chunks(self) -> bool:
        """Can a body be told whole from broken off whose length is not known? Not in HTTP/1.0."""
        return True


@dataclass(slots=True)
class HttpReply:
    """One reply. The protocol adds date, content-length and connection."""

    status: int
    body: bytes = b""
    headers: Headers = field(default_factory=list)


class JsonReply(HttpReply):
    """A reply with 200 whose head was rendered by whoever made it: the most frequent one.

    ``head`` is whole lines of headers, each with its line break, and holds nothing that a client
    chose.
    """

    __slots__ = ("head",)

    def __init__(self, body: bytes, head: bytes) -> None:
        self.status = 200
        self.body = body
        self.head = head

    @property
    def headers(self) -> Headers:  # type: ignore[override]
        """The headers, for whoever needs them one by one."""
        lines = self.head.split(b"\r\n")[:-1]
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


class BodyWriter(Protocol):
    """Where a source puts its body."""

    @property
    def is_paused(self) -> bool:
        """Is what was written not read yet? ``resume`` follows; writing on is only impolite."""

    def write(self, piece: bytes) -> None:
        """Write a piece of the body."""

    def end(self) -> None:
        """Say that the body is whole; nothing may be written after it."""

    def cut(self, last: bytes) -> None:
        """Break off behind these bytes, visibly not whole; nothing may be written after it."""


class BodySource(Protocol):
    """What makes a body of unknown length, as fast as it is read."""

    def begin(self, writer: BodyWriter) -> None:
        """Write to this writer, now and later, until ``end`` or ``cut``."""

    def resume(self) -> None:
        """Go on: the client reads again."""

    def shutdown(self) -> None:
        """The worker wants to end: end or cut the body soon."""

    def stop(self) -> None:
        """Stop for good, before or after ``begin``: nobody reads on. Never called after an end."""


class StreamReply(HttpReply):
    """A reply with 200 whose body comes from a source, piece by piece.

    The protocol frames the pieces. The reply to a HEAD has no body: its source is stopped.
    """

    __slots__ = ("source",)

    def __init__(self, headers: Headers, source: BodySource) -> None:
        self.status = 200
        self.body = b""
        self.headers = headers
        self.source = source


class ProblemReply(HttpReply):
    """A reply that is a problem, and its code, for those who count and log."""

    __slots__ = ("code", "shards")

    def __init__(
        self,
        status: int,
        body: bytes,
        headers: Headers,
        code: str,
        shards: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(status, body, headers)
        self.code = code
        self.shards = shards  # the id of each shard that failed, and its code


Reply = Callable[[HttpReply], None]
Cancel = Callable[[], None]


class HotHandler(Protocol):
    """Answers the hot paths of one worker process."""

    def claims(self, path: bytes) -> bool:
        """Return whether this handler answers the path, whatever the method."""

    def answer(self, request: HttpRequest, reply: Reply) -> Cancel | None:
        """Answer a request of a claimed path by calling ``reply`` once, now or later.

        The returned callable is called when the client has gone before the reply; a reply after
        that is dropped.
        """

    def refuse(self, code: str, request: HttpRequest | None) -> HttpReply:
        """Return the problem for a request that broke the protocol or a limit, or for a fault."""

    def upgrade(
        self, request: HttpRequest, transport: asyncio.Transport
    ) -> asyncio.Protocol | HttpReply | None:
        """Take over the connection of an upgrade request, refuse it, or return None: not mine.

        Who takes over writes the 101 answer to the transport and returns the protocol that gets
        the connection; ``connection_made`` is called on it next. If it has a ``shutdown`` method
        that is called when the worker stops, and the worker waits for the connection to end.
        """

    def body_bytes_max(self, path: bytes) -> int:
        """Return the limit for the body of a request to this path, claimed or not."""

    async def started(self) -> None:
        """Get ready. No connection is accepted before; an exception stops the worker for good."""

    async def stopped(self) -> None:
        """Let go of everything. No request is in flight any more."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Every limit of a connection, with its unit in its name."""

    request_line_bytes_max: int = 4_094
    header_bytes_max: int = 32_768
    header_count_max: int = 100
    header_read_s: float = 10.0
    body_read_s: float = 10.0
    body_bytes_per_s_min: int = 100_000  # a large body may take longer, if it keeps this up
    keep_alive_s: float = 75.0
    write_s: float = 30.0  # a client that reads nothing for so long is cut off
    linger_s: float = 2.0  # after a refusal, so that the client reads it before the reset
    pipeline_requests_max: int = 64
    pipeline_bytes_max: int = 1_048_576
