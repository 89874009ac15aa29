"""The HTTP protocol over real sockets: order, limits, refusals, faults and ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from modeldefs.wire.http1 import HttpLimits, HttpReply
from tests.unit.wire.serving import Client, Server, asgi_echo, one_reply, run, serving

GET = b"GET %b HTTP/1.1\r\nHost: db.example\r\n\r\n"


def test_a_hot_path_is_answered_with_date_and_length() -> None:
    """A hot path's reply is complete: status, date, the handler's headers, length, body."""
    status, headers, body = run(one_reply(GET % b"/hot/get_user?id=1"))

    assert status == 200
    assert headers == {
        "date": "Thu, 01 Jan 2026 00:00:00 GMT",
        "content-type": "application/json",
        "content-length": str(len(body)),
    }
    assert json.loads(body)["path"] == "/hot/get_user"
    assert json.loads(body)["query"] == "id=1"


@pytest.mark.parametrize("method", ["GET", "POST", "QUERY", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_every_method_reaches_the_handler(method: str) -> None:
    """A claimed path is the handler's for every method, QUERY (RFC 10008) included."""
    request = f"{method} /hot HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    _, _, body = run(one_reply(request))

    said = json.loads(body)
    assert said["method"] == method
    assert said["body"] == "{}"


def test_head_gets_the_length_without_the_body() -> None:
    """HEAD gets the headers of GET and no body, and the connection stays in step."""

    async def scenario() -> tuple[int, dict[str, Any]]:
        async with serving() as server:
            client = await server.client()
            await client.send(b"HEAD /hot HTTP/1.1\r\nHost: a\r\n\r\n" + GET % b"/hot/next")
            _, headers, _ = await client.reply(head_only=True)
            return int(headers["content-length"]), await client.said()

    length, following = run(scenario())

    assert length > 10
    assert following["path"] == "/hot/next"


ASGI_REQUESTS = [
    b"GET /cold/a%20b?x=1&y=%20 HTTP/1.1\r\nHost: db.example\r\nX-One:  a \r\nX-One: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: db.example:8000\r\nAccept: */*\r\n\r\n",
    b"GET //double//slash? HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /cold?a?b HTTP/1.0\r\n\r\n",
    b"GET http://db.example/absolute?q=1 HTTP/1.1\r\nHost: db.example\r\n\r\n",
    b"POST /cold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n",
    b"QUERY /cold HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /cold HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
]


@pytest.mark.parametrize("request_bytes", ASGI_REQUESTS)
def test_asgi_sees_what_uvicorn_would_have_shown(request_bytes: bytes) -> None:
    """The application cannot tell our protocol from uvicorn's: scope and body are equal."""
    expected = json.loads(run(one_reply(request_bytes, stock=True))[2])
    actual = json.loads(run(one_reply(request_bytes))[2])

    assert expected["via"] == "asgi"
    assert expected == actual


MIXED = (
    GET % b"/hot/1"
    + b"POST /cold/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    + b"QUERY /hot/3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nX-Trailer: t\r\n\r\n"
    + GET % b"/cold/4"
    + GET % b"/hot/5"
)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_pipelined_requests_are_replied_to_in_order_however_split(size: int) -> None:
    """Hot and ASGI requests in one pipeline, in pieces of any size: every reply in its place."""

    async def scenario() -> list[tuple[str, str, str]]:
        async with serving() as server:
            client = await server.client()
            for at in range(0, len(MIXED), size):
                await client.send(MIXED[at : at + size])
            said = [await client.said() for _ in range(5)]
            return [(one["via"], one["path"], str(one["body"])) for one in said]

    expected = [
        ("hot", "/hot/1", ""),
        ("asgi", "/cold/2", repr(b"abc")),
        ("hot", "/hot/3", "abcde"),
        ("asgi", "/cold/4", repr(b"")),
        ("hot", "/hot/5", ""),
    ]
    assert expected == run(scenario())


def test_a_request_waits_for_the_reply_before_it() -> None:
    """A pipelined request is not even begun before the one in front has its reply."""

    async def scenario() -> tuple[list[bytes], list[str]]:
        async with serving() as server:
            client = await server.client()
            await client.send(GET % b"/hot/later/1" + GET % b"/hot/2" + GET % b"/cold/3")
            await server.handler.asked.wait()
            begun = [request.path for request in server.handler.requests]
            server.handler.reply_next()
            return begun, [(await client.said())["path"] for _ in range(3)]

    begun, replied = run(scenario())

    assert begun == [b"/hot/later/1"]
    assert replied == ["/hot/later/1", "/hot/2", "/cold/3"]


@pytest.mark.parametrize(
    ("_case", "request_bytes"),
    [
        ("close", b"GET /hot HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        ("old", b"GET /hot HTTP/1.0\r\n\r\n"),
        ("asgi", b"GET /cold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    ],
)
def test_the_connection_ends_when_asked_to(_case: str, request_bytes: bytes) -> None:
    """After ``Connection: close`` and after HTTP/1.0 nothing more is served."""

    async def scenario() -> tuple[str, bytes, int]:
        async with serving() as server:
            client = await server.client()
            await client.send(request_bytes + GET % b"/hot/more")
            _, headers, _ = await client.reply()
            return headers["connection"], await client.rest(), len(server.handler.requests)

    connection, rest, served = run(scenario())

    assert (connection, rest) == ("close", b"")
    assert served <= 1


@pytest.mark.parametrize("path", [b"/hot/fault", b"/hot/unfit", b"/fault"])
def test_a_fault_is_a_problem_and_not_the_end_of_the_server(path: bytes) -> None:
    """A failing handler, an unfit reply, a failing application: 500 as problem+json, then on."""

    async def scenario() -> tuple[int, dict[str, str], dict[str, Any], dict[str, Any]]:
        async with serving() as server:
            client = await server.client()
            await client.send(GET % path)
            status, headers, body = await client.reply()
            again = await server.client()
            await again.send(GET % b"/hot/after")
            return status, headers, json.loads(body), await again.said()

    status, headers, problem, after = run(scenario())

    assert (status, problem["code"]) == (500, "internal")
    assert headers["content-type"] == "application/problem+json"
    assert "set-cookie" not in headers
    assert after["path"] == "/hot/after"


def test_a_second_reply_is_dropped() -> None:
    """A handler that replies twice does not put the connection out of step."""

    async def scenario() -> list[str]:
        async with serving() as server:
            client = await server.client()
            await client.send(GET % b"/hot/twice" + GET % b"/hot/next")
            return [(await client.said())["path"] for _ in range(2)]

    assert run(scenario()) == ["/hot/twice", "/hot/next"]


def test_a_client_that_leaves_cancels_what_it_asked() -> None:
    """When the client has gone the request in flight is cancelled, once; its reply is dropped."""

    async def scenario() -> tuple[list[bytes], list[bytes]]:
        async with serving() as server:
            client = await server.client()
            await client.send(GET % b"/hot/later" + GET % b"/hot/waiting")
            await server.handler.asked.wait()
            client.close()
            await server.handler.gone.wait()
            server.handler.reply_next()
            return server.handler.cancelled, server.paths

    assert run(scenario()) == ([b"/hot/later"], [b"/hot/later"])


def test_a_full_pipeline_pauses_reading() -> None:
    """What waits on one connection is bounded; everything sent is answered all the same."""
    limits = HttpLimits(pipeline_requests_max=4)
    count = 3_000

    async def scenario() -> tuple[int, int]:
        async with serving(limits=limits) as server:
            client = await server.client()
            client.writer.write(GET % b"/hot/later" + (GET % b"/hot/x") * count)
            await server.handler.asked.wait()
            connection = server.connection
            waiting = len(connection._queue)
            server.handler.reply_next()
            for _ in range(count + 1):
                await client.reply()
            return waiting, len(server.handler.requests)

    waiting, served = run(scenario())

    assert waiting < 500
    assert served == count + 1


def test_a_client_that_does_not_read_is_not_served_on_and_cut_off() -> None:
    """Replies pile up only so far; a client that never reads them loses its connection."""
    limits = HttpLimits(write_s=0.1)
    count = 1_000

    async def scenario() -> int:
        async with serving(limits=limits) as server:
            client = await server.client()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.write((GET % b"/hot/large") * count)
            closed = asyncio.Event()
            connection = await _first_connection(server)
            lost = connection.connection_lost

            def connection_lost(exc: Exception | None) -> None:
                lost(exc)
                closed.set()

            connection.connection_lost = connection_lost
            await closed.wait()
            return len(server.handler.requests)

    assert run(scenario()) < count / 2


async def _first_connection(server: Server) -> Any:
    await server.handler.asked.wait()
    return server.connection


class _Shout(asyncio.Protocol):
    """Answers in capitals."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data.upper())


def _take_over(request: Any, transport: asyncio.Transport) -> asyncio.Protocol:
    transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    return _Shout()


UPGRADE = b"GET /hot/up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shout/1\r\n\r\n"


@pytest.mark.parametrize("before", [b"", GET % b"/hot/later"])
def test_a_connection_can_be_taken_over(before: bytes) -> None:
    """After an upgrade all bytes are the new protocol's, those sent along with it too."""

    async def scenario() -> bytes:
        async with serving() as server:
            server.handler.takes_over = _take_over
            client = await server.client()
            await client.send(before + UPGRADE + b"hello ")
            if before:
                await server.handler.asked.wait()
                server.handler.reply_next()
                await client.reply()
            await client.reader.readuntil(b"\r\n\r\n")
            await client.send(b"there")
            return await client.reader.readexactly(11)

    assert run(scenario()) == b"HELLO THERE"


def test_an_upgrade_can_be_refused_or_ignored() -> None:
    """A refused upgrade is an ordinary reply; one that nobody wants is an ordinary request."""

    async def scenario() -> list[int]:
        async with serving() as server:
            client = await server.client()
            server.handler.takes_over = lambda *_: HttpReply(401)
            await client.send(UPGRADE)
            refused = await client.reply()
            server.handler.takes_over = lambda *_: None
            await client.send(UPGRADE + GET % b"/hot/next")
            ignored, following = await client.reply(), await client.reply()
            return [refused[0], ignored[0], following[0]]

    assert run(scenario()) == [401, 200, 200]


async def _shut_down(server: Server) -> None:
    for connection in tuple(server.state.connections):
        connection.shutdown()


def test_stopping_lets_requests_in_flight_finish() -> None:
    """On shutdown what was asked is answered, with ``Connection: close``; idle ones are closed."""

    async def scenario() -> tuple[bytes, dict[str, str], dict[str, str], int]:
        async with serving() as server:
            idle, busy, half = [await server.client() for _ in range(3)]
            await idle.send(GET % b"/hot")
            await idle.reply()
            await half.send(GET % b"/hot")
            await half.reply()
            await half.send(b"GET /hot/half HTTP/1.1\r\n")
            await busy.send(GET % b"/hot/later")
            await server.handler.asked.wait()
            while not server.handler.waiting:
                server.handler.asked.clear()
                await server.handler.asked.wait()
            await _round_trip(server)
            await _shut_down(server)
            closed = await idle.rest()
            server.handler.reply_next()
            _, finished, _ = await busy.reply()
            await half.send(b"Host: a\r\n\r\n")
            _, completed, _ = await half.reply()
            await busy.rest()
            await half.rest()
            return closed, finished, completed, len(server.state.connections)

    closed, finished, completed, left = run(scenario())

    assert closed == b""
    assert finished["connection"] == "close"
    assert completed["connection"] == "close"
    assert left == 0


async def _round_trip(server: Server) -> None:
    """Make sure that what other connections sent before has been read."""
    client: Client = await server.client()
    await client.send(b"GET /hot HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    await client.reply()
    await client.rest()


def test_stopping_waits_for_the_asgi_application_too() -> None:
    """An ASGI request in flight at shutdown is answered and its connection closed."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await leave.wait()
        await asgi_echo(scope, receive, send)

    async def scenario() -> tuple[int, bytes]:
        async with serving(app=slow) as server:
            client = await server.client()
            await client.send(GET % b"/cold")
            await entered.wait()
            await _shut_down(server)
            leave.set()
            status, _, _ = await client.reply()
            return status, await client.rest()

    assert run(scenario()) == (200, b"")
