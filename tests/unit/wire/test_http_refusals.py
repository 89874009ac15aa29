"""What is not HTTP, too large or too slow: one problem, in its place, and the end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modeldefs.wire.http1 import HttpLimits
from tests.unit.wire.serving import BODY_BYTES_MAX, one_reply, run, serving

GET = b"GET %b HTTP/1.1\r\nHost: db.example\r\n\r\n"


def _post(headers: bytes, body: bytes = b"", path: bytes = b"/hot") -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n" + body


REFUSED: dict[str, tuple[bytes, int]] = {
    "two lengths": (_post(b"Content-Length: 1\r\nContent-Length: 1\r\n", b"a"), 400),
    "length and encoding": (
        _post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        400,
    ),
    "encoding and length": (
        _post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
        400,
    ),
    "encoding twice": (
        _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        400,
    ),
    "another encoding": (_post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 400),
    "unknown encoding": (_post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 400),
    "encoding in 1.0": (b"POST /hot HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "length with a sign": (_post(b"Content-Length: +1\r\n", b"a"), 400),
    "length with a space before": (_post(b"Content-Length : 1\r\n", b"a"), 400),
    "bad size line": (_post(b"Transfer-Encoding: chunked\r\n", b"zz\r\n"), 400),
    "size line overflow": (_post(b"Transfer-Encoding: chunked\r\n", b"f" * 17 + b"\r\n"), 400),
    "bare LF after a size": (_post(b"Transfer-Encoding: chunked\r\n", b"1\na\r\n"), 400),
    "bare LF in an extension": (_post(b"Transfer-Encoding: chunked\r\n", b"1;x\na\r\n"), 400),
    "bare LF in an extension value": (
        _post(b"Transfer-Encoding: chunked\r\n", b"1;x=y\na\r\n"),
        400,
    ),
    "data longer than its size": (_post(b"Transfer-Encoding: chunked\r\n", b"1\r\nab\r\n"), 400),
    "no host": (b"GET /hot HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /hot HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "empty host": (b"GET /hot HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "host with a path": (b"GET /hot HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "host with user": (b"GET /hot HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    "two hosts in one": (b"GET /hot HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "another host in the target": (b"GET http://b/hot HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "another scheme": (b"GET ftp://a/hot HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tunnel": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "fragment": (b"GET /hot#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "raw UTF-8 target": ("GET /hot/é HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 400),
    "underscore": (b"GET /hot HTTP/1.1\r\nHost: a\r\nX_Api_Key: k\r\n\r\n", 400),
    "folded header": (b"GET /hot HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    "bare LF lines": (b"GET /hot HTTP/1.1\nHost: a\n\n", 400),
    "NUL in a value": (b"GET /hot HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
    "bare CR in a value": (b"GET /hot HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
    "version 0.9": (b"GET /hot\r\n\r\n", 400),
    "version 2.0": (b"GET /hot HTTP/2.0\r\nHost: a\r\n\r\n", 400),
    "preface of version 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "unknown method": (b"FROB /hot HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "unknown expectation": (_post(b"Expect: more\r\nContent-Length: 1\r\n", b"a"), 400),
    "body behind an upgrade": (
        _post(b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n", b"a"),
        400,
    ),
    "large body": (_post(b"Content-Length: 1001\r\n"), 413),
    "large body unannounced": (
        _post(b"Transfer-Encoding: chunked\r\n", b"3e9\r\n" + b"x" * 1001),
        413,
    ),
    "large body for ASGI": (_post(b"Content-Length: 1001\r\n", path=b"/cold"), 413),
    "long target": (GET % (b"/hot?" + b"x" * 4_080), 414),
    "endless target": (b"GET /" + b"x" * 100_000, 414),
    "many headers": (_post(b"X: y\r\n" * 101), 431),
    "large header": (_post(b"X: " + b"y" * 32_768 + b"\r\n"), 431),
    "large trailer": (
        _post(b"Transfer-Encoding: chunked\r\n", b"0\r\nX: " + b"y" * 32_768 + b"\r\n\r\n"),
        431,
    ),
}
CODES = {
    400: "invalid-request",
    413: "body-too-large",
    414: "uri-too-long",
    431: "header-too-large",
}


@pytest.mark.parametrize(
    ("_case", "request_bytes", "status"),
    [pytest.param(case, *known, id=case) for case, known in REFUSED.items()],
)
@pytest.mark.parametrize("size", [3, 1_000_000])
def test_a_breach_of_http_is_one_problem_and_the_end(
    _case: str, request_bytes: bytes, status: int, size: int
) -> None:
    """A malformed or too large request gets one problem+json; what follows it is never served."""
    smuggled = GET % b"/hot/smuggled"

    async def scenario() -> tuple[int, dict[str, str], dict[str, Any], bytes, list[bytes]]:
        async with serving() as server:
            client = await server.client()
            sent = request_bytes + smuggled
            client.writer.write(sent[:size])
            for at in range(size, min(len(sent), 600), size):
                await client.send(sent[at : at + size])
            client.writer.write(sent[max(size, 600) :])
            answer, headers, body = await client.reply()
            rest = await client.rest()
            return answer, headers, json.loads(body), rest, server.paths

    answer, headers, problem, rest, paths = run(scenario())

    assert (answer, problem["code"]) == (status, CODES[status])
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert rest == b""
    assert paths == []


def test_an_endless_header_is_cut_off() -> None:
    """A header that never ends is refused when it is over the limit, not when it ends."""

    async def scenario() -> int:
        async with serving() as server:
            client = await server.client()
            client.writer.write(b"GET /hot HTTP/1.1\r\nHost: a\r\nX: ")
            for _ in range(40):
                client.writer.write(b"y" * 16_384)
            return (await client.reply())[0]

    assert run(scenario()) == 431


def test_good_requests_before_a_bad_one_are_answered_first() -> None:
    """A breach in a pipeline ends it, after the replies to what came before."""

    async def scenario() -> list[int]:
        async with serving() as server:
            client = await server.client()
            await client.send(GET % b"/hot/later" + GET % b"/hot" + b"FROB\r\n\r\n")
            await server.handler.asked.wait()
            server.handler.reply_next()
            return [(await client.reply())[0] for _ in range(3)]

    assert run(scenario()) == [200, 200, 400]


def test_the_body_is_invited_when_expected() -> None:
    """``Expect: 100-continue`` is answered, then the request; for ASGI paths too."""

    async def scenario(path: bytes) -> tuple[bytes, dict[str, Any]]:
        async with serving() as server:
            client = await server.client()
            await client.send(_post(b"Expect: 100-continue\r\nContent-Length: 2\r\n", path=path))
            invited = await client.reader.readuntil(b"\r\n\r\n")
            await client.send(b"ab")
            return invited, await client.said()

    for path, body in ((b"/hot", "ab"), (b"/cold", repr(b"ab"))):
        invited, said = run(scenario(path))
        assert invited == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert said["body"] == body


def test_a_body_is_invited_after_the_reply_before_it() -> None:
    """In a pipeline the invitation waits for its turn, or a client would misread it."""

    async def scenario() -> tuple[dict[str, Any], bytes, dict[str, Any]]:
        async with serving() as server:
            client = await server.client()
            expecting = _post(b"Expect: 100-continue\r\nContent-Length: 2\r\n")
            await client.send(GET % b"/hot/later" + expecting)
            await server.handler.asked.wait()
            server.handler.reply_next()
            first = await client.said()
            invited = await client.reader.readuntil(b"\r\n\r\n")
            await client.send(b"ab")
            return first, invited, await client.said()

    first, invited, second = run(scenario())

    assert (first["path"], second["body"]) == ("/hot/later", "ab")
    assert invited.startswith(b"HTTP/1.1 100")


def test_a_too_large_body_is_not_invited() -> None:
    """``Expect: 100-continue`` with too large a body gets 413 at once."""
    request = _post(b"Expect: 100-continue\r\nContent-Length: %d\r\n" % (BODY_BYTES_MAX + 1))

    assert run(one_reply(request))[0] == 413


@pytest.mark.parametrize(
    ("_case", "sent", "expected"),
    [
        ("head", b"GET /hot HTTP/1.1\r\nHo", b"HTTP/1.1 408"),
        ("body", _post(b"Content-Length: 10\r\n", b"abc"), b"HTTP/1.1 408"),
        ("nothing", b"", b""),
        ("blank lines", b"\r\n\r\n", b""),
    ],
)
def test_a_client_that_stalls_is_let_go(_case: str, sent: bytes, expected: bytes) -> None:
    """An unfinished request gets 408 in time; an idle connection is closed without a word."""
    limits = HttpLimits(header_read_s=0.05, body_read_s=0.05, keep_alive_s=0.05, linger_s=0.05)

    async def scenario() -> bytes:
        async with serving(limits=limits) as server:
            client = await server.client()
            await client.send(sent)
            return await client.rest()

    assert run(scenario())[: len(b"HTTP/1.1 408")] == expected


def test_a_served_request_may_take_longer_than_the_limits_of_reading() -> None:
    """No limit on reading runs while the handler works: the client waits for us then."""
    limits = HttpLimits(header_read_s=0.03, body_read_s=0.03, keep_alive_s=0.03)

    async def scenario() -> bytes:
        async with serving(limits=limits) as server:
            waiting, idle = await server.client(), await server.client()
            await waiting.send(GET % b"/hot/later")
            await server.handler.asked.wait()
            assert await idle.rest() == b""  # so its time, which began later, is over
            server.handler.reply_next()
            return (await waiting.reply())[2]

    assert b"/hot/later" in run(scenario())
