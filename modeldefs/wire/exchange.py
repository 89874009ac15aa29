"""One request given to the hot handler and its one reply; and what an upgrade makes of both.

A reply is rendered whole, and refused whole if it is no HTTP: nothing half written is ever sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableSet
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from modeldefs.wire.http1 import (
    Cancel,
    Headers,
    HotHandler,
    HttpReply,
    HttpRequest,
    JsonReply,
    StreamReply,
)
from modeldefs.wire.problems import STANDARD_PROBLEMS, Internal, problem_body, problem_headers
from modeldefs.wire.request_reader import ReadRequest

logger = logging.getLogger(__name__)


def reply_bytes(
    reply: HttpReply, *, default_headers: Headers, head_only: bool, keep_alive: bool
) -> bytes:
    """Return the bytes of a reply; of one that is streamed the head.

    Raises:
        ValueError: A header has a line break, or the status is not a final one.
    """
    headers = default_headers + reply.headers
    if isinstance(reply, StreamReply) and not head_only:
        headers = [*headers, (b"transfer-encoding", b"chunked")]
    parts = [STATUS_LINE.get(reply.status, b"")]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    head = b"".join(parts)
    lines = len(headers) + 1
    # A line break in a value would let whoever chose it write headers of its own.
    if head.count(b"\n") != lines or head.count(b"\r") != lines or reply.status < 200:
        raise ValueError("a reply's header has a line break, or its status is not a final one")
    close = b"" if keep_alive else b"connection: close\r\n"
    if reply.status in (204, 304) or isinstance(reply, StreamReply):
        return b"%b%b\r\n" % (head, close)
    body = b"" if head_only else reply.body
    return b"%bcontent-length: %d\r\n%b\r\n%b" % (head, len(reply.body), close, body)


_date: tuple[Headers, bytes] = ([], b"")


def json_reply_bytes(reply: JsonReply, default_headers: Headers) -> bytes:
    """Return the bytes of a JSON reply on a connection that stays open."""
    global _date
    # uvicorn makes a new list each second, so one rendering serves a second's replies.
    known, rendered = _date
    if known is not default_headers:
        lines = b"".join(b"%b: %b\r\n" % header for header in default_headers)
        rendered = STATUS_LINE[200] + lines
        _date = (default_headers, rendered)
    body = reply.body
    return b"%b%bcontent-length: %d\r\n\r\n%b" % (rendered, reply.head, len(body), body)


def plain_problem(code: str) -> HttpReply:
    """Return the problem of this code, for when the handler itself fails to."""
    problem = STANDARD_PROBLEMS.get(code, Internal)()
    headers = [(name.encode(), value.encode()) for name, value in problem_headers(problem)]
    return HttpReply(problem.status, problem_body(problem), headers)


class Renderer:
    """Makes the bytes of replies; what is unfit to be sent becomes a refusal, logged."""

    def __init__(self, handler: HotHandler, server_state: ServerState) -> None:
        self._handler = handler
        self._server_state = server_state

    def reply(self, reply: HttpReply, request: ReadRequest, *, keep_alive: bool) -> bytes:
        """Return the bytes of a reply to this request."""
        try:
            return self._bytes(reply, request, keep_alive=keep_alive)
        except Exception:
            logger.exception("http.reply_unfit", extra={"path": request.path})
            return self.refusal("internal", request, keep_alive=keep_alive)

    def refusal(self, code: str, request: ReadRequest | None, *, keep_alive: bool) -> bytes:
        """Return the bytes of the problem with this code."""
        return self._bytes(self.refuse(code, request), request, keep_alive=keep_alive)

    def refuse(self, code: str, request: HttpRequest | None) -> HttpReply:
        """Return the problem with this code, whatever the handler does."""
        try:
            return self._handler.refuse(code, request)
        except Exception:
            logger.exception("http.refuse_failed", extra={"code": code})
            return plain_problem(code)

    def _bytes(self, reply: HttpReply, request: ReadRequest | None, *, keep_alive: bool) -> bytes:
        return reply_bytes(
            reply,
            default_headers=self._server_state.default_headers,
            head_only=request is not None and request.method == b"HEAD",
            keep_alive=keep_alive,
        )


class Exchange(msgspec.Struct, eq=False):
    """One request that the handler was given, and its one reply."""

    request: ReadRequest
    finish: Callable[[Exchange, HttpReply], None]
    replied: bool = False
    cancel: Cancel | None = None

    def reply(self, reply: HttpReply) -> None:
        """Give the reply; a second one is a fault of the handler, logged and dropped."""
        if self.replied:
            logger.error("http.replied_twice", extra={"path": self.request.path})
            return
        self.replied = True
        self.cancel = None
        self.finish(self, reply)

    def abandon(self) -> None:
        """Tell the handler that the client has gone."""
        cancel, self.cancel = self.cancel, None
        if cancel is None or self.replied:
            return
        try:
            cancel()
        except Exception:
            logger.exception("http.cancel_failed", extra={"path": self.request.path})


class Upgraded(asyncio.Protocol):
    """A connection that was taken over; the worker still waits for it to end when it stops."""

    def __init__(self, inner: asyncio.Protocol, connections: MutableSet[Any]) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: asyncio.Transport | None = None

    def take_over(self, transport: asyncio.Transport) -> None:
        """Hand the connection to the new protocol."""
        self._transport = transport
        self._connections.add(self)
        transport.set_protocol(self)
        try:
            self._inner.connection_made(transport)
        except Exception:
            logger.exception("http.upgrade_failed")
            transport.abort()

    def shutdown(self) -> None:
        """Ask the new protocol to end, when the worker stops."""
        shutdown = getattr(self._inner, "shutdown", None)
        if shutdown is not None:
            shutdown()
        elif self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on; the worker need not wait any more."""
        self._connections.discard(self)
        self._inner.connection_lost(exc)
