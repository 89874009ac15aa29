"""A real server of the hot protocol on loopback and raw clients to talk to it with."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import uvloop
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from modeldefs.wire.exchange import plain_problem
from modeldefs.wire.hot_protocol import HotProtocol
from modeldefs.wire.http1 import (
    BodySource,
    Cancel,
    HttpLimits,
    HttpReply,
    HttpRequest,
    Reply,
    StreamReply,
)
from modeldefs.wire.worker import protocol_factory

T = TypeVar("T")
TIMEOUT_S = 20.0
BODY_BYTES_MAX = 1000


def run(promise: Coroutine[Any, Any, T]) -> T:
    """Run one test on uvloop, failing if it hangs."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(promise, TIMEOUT_S))


def echo(request: HttpRequest) -> HttpReply:
    """Say what was asked."""
    said = {
        "method": request.method.decode(),
        "path": request.path.decode(),
        "query": request.query.decode(),
        "body": request.body.decode("latin-1"),
        "via": "hot",
    }
    headers = [(b"content-type", b"application/json")]
    return HttpReply(200, json.dumps(said).encode(), headers)


class EchoHandler:
    """Claims /hot...; answers at once, or when told to for paths with /later."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.waiting: list[tuple[HttpRequest, Reply]] = []
        self.cancelled: list[bytes] = []
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self.takes_over: Callable[..., asyncio.Protocol | HttpReply | None] = lambda *_: None
        self.body_max = BODY_BYTES_MAX
        self.source: BodySource | None = None

    def claims(self, path: bytes) -> bool:
        return path.startswith(b"/hot")

    def answer(self, request: HttpRequest, reply: Reply) -> Cancel | None:
        self.requests.append(request)
        self.asked.set()
        if request.path.startswith(b"/hot/fault"):
            raise RuntimeError("a planted fault")
        if request.path.startswith(b"/hot/twice"):
            reply(echo(request))
            reply(echo(request))
            return None
        if request.path.startswith(b"/hot/unfit"):
            reply(HttpReply(200, b"", [(b"x-echo", b"a\r\nset-cookie: b=c")]))
            return None
        if request.path.startswith(b"/hot/stream") and self.source is not None:
            reply(StreamReply([(b"content-type", b"application/jsonl")], self.source))
            return None
        if request.path.startswith(b"/hot/large"):
            reply(HttpReply(200, b"x" * 100_000))
            return None
        if not request.path.startswith(b"/hot/later"):
            reply(echo(request))
            return None
        self.waiting.append((request, reply))

        def cancel() -> None:
            self.cancelled.append(request.path)
            self.gone.set()

        return cancel

    def reply_next(self) -> None:
        request, reply = self.waiting.pop(0)
        reply(echo(request))

    def refuse(self, code: str, request: HttpRequest | None) -> HttpReply:
        return plain_problem(code)

    def upgrade(
        self, request: HttpRequest, transport: asyncio.Transport
    ) -> asyncio.Protocol | HttpReply | None:
        return self.takes_over(request, transport)

    def body_bytes_max(self, path: bytes) -> int:
        return self.body_max

    async def started(self) -> None: ...

    async def stopped(self) -> None: ...


async def asgi_echo(scope: Any, receive: Any, send: Any) -> None:
    """Say what the ASGI application was told; fail on /fault."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/fault":
        raise RuntimeError("a planted fault")
    said = {**scope, "body": body, "via": "asgi", "client": None, "server": None}
    answer = json.dumps(said, default=repr).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


class Server:
    """The listening end."""

    def __init__(self, handler: EchoHandler, state: ServerState, port: int) -> None:
        self.handler, self.state, self.port = handler, state, port
        self.clients: list[Client] = []

    @property
    def connection(self) -> HotProtocol:
        """The only connection there is."""
        (connection,) = self.state.connections
        return cast(HotProtocol, connection)

    @property
    def paths(self) -> list[bytes]:
        """What the handler was asked, in order."""
        return [request.path for request in self.handler.requests]

    async def client(self) -> Client:
        """Return a new connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def end(self) -> None:
        """Cut all connections."""
        for client in self.clients:
            client.writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()
        for connection in tuple(self.state.connections):
            connection.shutdown()


class Client:
    """A client that sends what no decent one would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, *, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Return the next reply: status, headers, body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = 0 if head_only else int(headers.get("content-length", 0))
        return int(first.split(" ")[1]), headers, await self.reader.readexactly(length)

    async def said(self) -> dict[str, Any]:
        """Return what the echo said."""
        _, _, body = await self.reply()
        return cast(dict[str, Any], json.loads(body))

    async def rest(self) -> bytes:
        """Return what comes until the server closes."""
        return await self.reader.read()

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def serving(
    *, limits: HttpLimits | None = None, app: Any = asgi_echo, stock: bool = False
) -> AsyncIterator[Server]:
    """Serve the echo handler, or with ``stock`` uvicorn's own protocol."""
    handler = EchoHandler()
    config = Config(app, http="httptools", ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Thu, 01 Jan 2026 00:00:00 GMT")]
    loop = asyncio.get_running_loop()
    make: Callable[..., asyncio.Protocol] = HttpToolsProtocol
    if not stock:
        make = protocol_factory(handler, limits=limits, sweep_s=0.01)
    server = await loop.create_server(
        lambda: make(config=config, server_state=state, app_state={}, _loop=loop), "127.0.0.1", 0
    )
    served = Server(handler, state, server.sockets[0].getsockname()[1])
    try:
        yield served
    finally:
        server.close()
        await served.end()
        await server.wait_closed()


async def one_reply(request: bytes, **serving_options: Any) -> tuple[int, dict[str, str], bytes]:
    """Return the reply to one request on a server of its own."""
    async with serving(**serving_options) as server:
        client = await server.client()
        await client.send(request)
        return await client.reply()
