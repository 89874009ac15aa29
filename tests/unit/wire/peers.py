"""Peers on real sockets that misbehave: nodes that flap, and dispatchers that send what they like.

Both live on TCP and on unix sockets; a node that serves is the real HTTP protocol and stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from modeldefs.wire.exchange import plain_problem
from modeldefs.wire.frames import AnswerRecord, FrameReader, FrameWriter, unpack_answers
from modeldefs.wire.handshake import UpgradeReply, upgrade_request
from modeldefs.wire.http1 import HttpReply, HttpRequest
from modeldefs.wire.link import StreamLimits
from modeldefs.wire.stream import StreamClient
from modeldefs.wire.stream_server import StreamServer
from modeldefs.wire.worker import protocol_factory
from tests.unit.wire.serving import EchoHandler, asgi_echo
from tests.unit.wire.streaming import IDENTITY, LIMITS, NOW, Calls, Node, States

KINDS = ["tcp", "unix"]
SERVE = "serves"
# Only the time a connection may take ends these; where they are not, that time never matters.
STALLS = ["says nothing", "grants half"]
_ANSWERS = {
    "says nothing": b"",
    "talks garbage": b"\0\xff\r\n\r\n\r\n\r\n" * 20,
    "is another server": b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
    "grants half": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upg",
    "grants without a proof": b"HTTP/1.1 101 Yes\r\n\r\n",
    "never ends its head": b"HTTP/1.1 101 Yes\r\nX: " + b"y" * 70_000,
}
_AFTER_GRANT = ["dies at the first call", "sends a bad frame", "drains at once", "is refused"]
FLAWS = ["closes", "resets", *_ANSWERS, *_AFTER_GRANT]


class _Rude(asyncio.Protocol):
    """A peer that is no node."""

    def __init__(self, flaw: str) -> None:
        self._flaw = flaw
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._flaw == "closes":
            self._transport.close()
        elif self._flaw == "resets":
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWERS.get(self._flaw, b""))

    def cut(self) -> None:
        """End."""
        self._transport.abort()


class Peer:
    """A listening node; connection number n has flaw number n, later ones have none."""

    def __init__(self, flaws: Sequence[str], limits: StreamLimits) -> None:
        self.node = Node(limits)
        self.handler = EchoHandler()
        self.connections = 0
        self.state = ServerState()
        self.at: dict[str, Any] = {}
        self._flaws = iter(flaws)
        self._rude: list[_Rude] = []
        self._config = Config(asgi_echo, http="httptools", ws="none", lifespan="off",
                              log_config=None)  # fmt: skip
        self._config.load()
        self._make = protocol_factory(self.handler, sweep_s=0.01)
        self.handler.takes_over = self._take_over
        self._flaw = SERVE

    def connect(self) -> asyncio.Protocol:
        """Return who answers the next connection."""
        self.connections += 1
        flaw = self._flaw = next(self._flaws, SERVE)
        if flaw == SERVE or flaw in _AFTER_GRANT:
            return self._make(config=self._config, server_state=self.state, app_state={})
        self._rude.append(_Rude(flaw))
        return self._rude[-1]

    def _take_over(
        self, request: HttpRequest, transport: asyncio.Transport
    ) -> asyncio.Protocol | HttpReply:
        flaw = self._flaw
        if flaw == "is refused":
            return plain_problem("contract-mismatch")
        stream = self.node.take_over(request, transport)
        loop = asyncio.get_running_loop()
        if flaw == "sends a bad frame":
            loop.call_soon(transport.write, b"\1\0\0\0" + bytes(17))
        elif flaw == "drains at once" and isinstance(stream, StreamServer):
            loop.call_soon(stream.shutdown)
        elif flaw == "dies at the first call" and isinstance(stream, StreamServer):
            stream.data_received = lambda _: transport.abort()  # type: ignore[method-assign,assignment]
        return stream

    def end(self) -> None:
        """Cut every connection."""
        for rude in self._rude:
            rude.cut()
        for transport in self.node.transports:
            transport.abort()
        for connection in tuple(self.state.connections):
            connection.shutdown()


@asynccontextmanager
async def peer(
    kind: str, flaws: Sequence[str] = (), *, limits: StreamLimits = LIMITS
) -> AsyncIterator[Peer]:
    """Listen on a socket of this kind."""
    loop = asyncio.get_running_loop()
    listening = Peer(flaws, limits)
    with _folder() as folder:
        if kind == "unix":
            path = str(folder / "s")
            server = await loop.create_unix_server(listening.connect, path)
            listening.at = {"host": "", "port": 0, "unix_path": lambda: path}
        else:
            server = await loop.create_server(listening.connect, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            listening.at = {"host": "127.0.0.1", "port": port}
        try:
            yield listening
        finally:
            server.close()
            listening.end()
            await server.wait_closed()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="spp-") as name:
        yield Path(name)


@asynccontextmanager
async def client_of(
    listening: Peer, *, limits: StreamLimits = LIMITS
) -> AsyncIterator[tuple[Calls, States]]:
    """Connect a client; yield its calls and its states."""
    states = States()
    client = StreamClient(
        identity=IDENTITY,
        on_state=states,
        limits=limits,
        clock=lambda: NOW,
        chance=lambda: 0.5,
        **listening.at,
    )
    await client.start()
    try:
        yield Calls(client), states
    finally:
        await client.close()


class RawStream:
    """A dispatcher's end by hand: honest up to the handshake, then whatever a test sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.frames = FrameWriter(b"")
        self._answers = FrameReader(b"")
        self.said: list[AnswerRecord] = []

    async def shake_hands(self, nonce: bytes) -> None:
        """Be granted a stream."""
        self.writer.write(upgrade_request(IDENTITY, host="h", nonce=nonce, now=NOW))
        reply = UpgradeReply(IDENTITY, nonce=nonce)
        granted = None
        while granted is None:
            granted = reply.feed(await self.reader.read(65_536))
        keys, rest = granted
        self.frames = FrameWriter(keys.sending)
        self._answers = FrameReader(keys.receiving)
        self._read(rest)

    def _read(self, data: bytes) -> None:
        for payload in self._answers.feed(data):
            self.said += [AnswerRecord(*answer) for answer in unpack_answers(payload)]

    async def until(self, enough: Callable[[list[AnswerRecord]], bool]) -> list[AnswerRecord]:
        """Read answers until there are enough."""
        while not enough(self.said):
            data = await self.reader.read(1 << 20)
            assert data
            self._read(data)
        return self.said

    async def ended(self) -> bool:
        """Wait until the node has ended the connection; say that it sent nothing more."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


@asynccontextmanager
async def raw_stream(listening: Peer) -> AsyncIterator[RawStream]:
    """Open a stream by hand."""
    path = listening.at.get("unix_path")
    if path:
        reader, writer = await asyncio.open_unix_connection(path())
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.at["port"])
    stream = RawStream(reader, writer)
    try:
        await stream.shake_hands(bytes([listening.connections % 256]) * 16)
        yield stream
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
