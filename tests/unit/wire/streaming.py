"""A real stream on loopback: a client, a node's end behind real HTTP, and a hand in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from modeldefs.wire.exchange import plain_problem
from modeldefs.wire.frames import RequestRecord
from modeldefs.wire.handshake import Session, StreamIdentity, accept_upgrade
from modeldefs.wire.http1 import HttpReply, HttpRequest
from modeldefs.wire.problems import Problem
from modeldefs.wire.signing import NonceCache
from modeldefs.wire.stream import StreamClient, StreamLimits
from modeldefs.wire.stream_server import Answer, StreamServer
from tests.unit.wire.serving import Server, serving

KEY = b"p" * 32
IDENTITY = StreamIdentity(dispatcher="d1", shard="alpha", bundle="b1", pair_key=KEY)
NOW = 1_700_000_000.0
LIMITS = StreamLimits(backoff_first_s=0.001, backoff_max_s=0.01)
LATER, FAULT, ECHO = 7, 8, 1


class Node:
    """The node's end: echoes at once, or when told to for endpoint LATER."""

    def __init__(self, limits: StreamLimits) -> None:
        self.limits = limits
        self.shard, self.bundle, self.key, self.now = "alpha", "b1", KEY, NOW
        self.nonces = NonceCache()
        self.requests: list[RequestRecord] = []
        self.waiting: list[tuple[RequestRecord, Answer]] = []
        self.cancelled: list[int] = []
        self.asked = asyncio.Event()
        self.cancel_heard = asyncio.Event()
        self.streams: list[StreamServer] = []
        self.transports: list[asyncio.Transport] = []

    def take_over(
        self, request: HttpRequest, transport: asyncio.Transport
    ) -> asyncio.Protocol | HttpReply:
        accepted = accept_upgrade(
            request,
            pair_key_of={"d1": self.key}.get,
            shard=self.shard,
            bundle=self.bundle,
            nonces=self.nonces,
            now=self.now,
            nonce=bytes([len(self.streams)]) * 16,
        )
        if isinstance(accepted, Problem):
            return plain_problem(accepted.code)
        answer, session = accepted
        transport.write(answer)
        self.transports.append(transport)
        self.streams.append(self.stream(session))
        return self.streams[-1]

    def stream(self, session: Session) -> StreamServer:
        return StreamServer(
            session=session,
            on_request=self.on_request,
            on_cancel=self.on_cancel,
            limits=self.limits,
        )

    def on_request(self, record: RequestRecord, answer: Answer) -> None:
        self.requests.append(record)
        if record.endpoint == FAULT:
            raise RuntimeError("a planted fault")
        if record.endpoint == LATER:
            self.waiting.append((record, answer))
            self.asked.set()
        else:
            answer(200, record.body)

    def on_cancel(self, request_id: int) -> None:
        self.cancelled.append(request_id)
        self.cancel_heard.set()


class Calls:
    """What became of the calls of a client: every ``done`` there was."""

    def __init__(self, client: StreamClient) -> None:
        self.client = client
        self.outcomes: dict[int, list[tuple[int, bytes]]] = {}
        self._sent = 0
        self._changed = asyncio.Event()

    def send(self, body: bytes = b"", *, endpoint: int = ECHO) -> int:
        """Send one call; ``outcomes`` is keyed by the number of the call, from 0."""
        number, self._sent = self._sent, self._sent + 1
        self.outcomes[number] = []

        def done(status: int, answer: bytes) -> None:
            self.outcomes[number].append((status, answer))
            self._changed.set()

        return self.client.send(
            endpoint=endpoint, flags=0, deadline_ms=1000, epoch=3, bucket=5, body=body, done=done
        )

    async def all_done(self) -> dict[int, list[tuple[int, bytes]]]:
        """Wait until every call was answered."""
        while not all(self.outcomes.values()):
            self._changed.clear()
            await self._changed.wait()
        return self.outcomes


class States:
    """The states a client reported, and a way to wait for the next."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, str]] = []
        self._changed = asyncio.Event()

    def __call__(self, connected: bool, reason: str) -> None:
        self.seen.append((connected, reason))
        self._changed.set()

    async def until(self, count: int) -> list[tuple[bool, str]]:
        while len(self.seen) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.seen


class Stream:
    """All of it."""

    def __init__(self, client: StreamClient, node: Node, server: Server, states: States) -> None:
        self.client, self.node, self.server, self.states = client, node, server, states
        self.calls = Calls(client)


@asynccontextmanager
async def streaming(
    *,
    limits: StreamLimits = LIMITS,
    node_limits: StreamLimits | None = None,
    identity: StreamIdentity = IDENTITY,
    port: int | None = None,
    **node_facts: Any,
) -> AsyncIterator[Stream]:
    """Connect a client to a node over HTTP on loopback; ``port`` puts something in between."""
    async with serving() as server:
        node = Node(node_limits or limits)
        for name, value in node_facts.items():
            setattr(node, name, value)
        server.handler.takes_over = node.take_over
        states = States()
        client = StreamClient(
            host="127.0.0.1",
            port=port or server.port,
            identity=identity,
            on_state=states,
            limits=limits,
            clock=lambda: NOW,
            chance=lambda: 0.5,
        )
        await client.start()
        try:
            yield Stream(client, node, server, states)
        finally:
            await client.close()
            for transport in node.transports:
                transport.abort()
