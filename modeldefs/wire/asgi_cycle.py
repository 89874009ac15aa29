"""What the ASGI application sees of a request that the hot handler does not claim.

The same scope that uvicorn's own protocol makes (a test compares them), and the body in one
message, as it was read and bounded before. An application that fails is answered for with the
handler's problem, not with uvicorn's plain text.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from modeldefs.wire.http1 import HttpReply, HttpRequest
from modeldefs.wire.request_reader import ReadRequest

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent, HTTPScope

Headers = list[tuple[bytes, bytes]]


class HeldFlow(FlowControl):
    """Flow control whose reading stays paused while the queue of requests is full."""

    held = False

    def resume_reading(self) -> None:
        """Resume, unless held: the application asks for it whenever it wants its body."""
        if not self.held:
            super().resume_reading()


class AsgiCycle(RequestResponseCycle):
    """One request and response of the ASGI application."""

    def __init__(
        self,
        *,
        scope: HTTPScope,
        request: ReadRequest,
        refuse: Callable[[str, HttpRequest | None], HttpReply],
        transport: asyncio.Transport,
        flow: FlowControl,
        logger: logging.Logger,
        access_logger: logging.Logger,
        access_log: bool,
        default_headers: Headers,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        super().__init__(
            scope=scope,
            transport=transport,
            flow=flow,
            logger=logger,
            access_logger=access_logger,
            access_log=access_log,
            default_headers=default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,  # the protocol has said it already
            keep_alive=keep_alive,
            on_response=on_response,
        )
        self._request = request
        self._refuse = refuse
        self.body = bytearray(request.body)
        self.more_body = False
        self.message_event.set()

    async def send(self, message: ASGISendEvent) -> None:
        """Send, unless the connection is on its way out."""
        if self.transport.is_closing():
            self.disconnected = True
        await super().send(message)

    async def send_500_response(self) -> None:
        """Say with a problem that the application failed."""
        reply = self._refuse("internal", self._request)
        headers: Headers = [
            *reply.headers,
            (b"content-length", b"%d" % len(reply.body)),
            (b"connection", b"close"),
        ]
        await self.send(
            {"type": "http.response.start", "status": reply.status, "headers": headers}
        )
        await self.send({"type": "http.response.body", "body": reply.body, "more_body": False})


def asgi_scope(protocol: HttpToolsProtocol, request: ReadRequest) -> HTTPScope:
    """Return the scope of a request, as uvicorn's protocol would make it."""
    path = request.path.decode("ascii")
    if "%" in path:
        path = urllib.parse.unquote(path)
    scope = {
        "type": "http",
        "asgi": {"version": protocol.asgi_version, "spec_version": "2.3"},
        "http_version": request.version,
        "server": protocol.server,
        "client": protocol.client,
        "scheme": protocol.scheme,
        "root_path": protocol.root_path,
        "headers": list(request.headers),  # an application may add to its own
        "state": protocol.app_state.copy(),
        "method": request.method.decode("ascii"),
        "path": protocol.root_path + path,
        "raw_path": protocol.root_path.encode("ascii") + request.path,
        "query_string": request.query,
    }
    return cast("HTTPScope", scope)
