"""The worker under a real gunicorn: started before it serves, finishing before it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.unit.wire.serving import Client, run

ROOT = Path(__file__).parents[3]
GET = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"


@asynccontextmanager
async def _gunicorn(**environment: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    # The listening socket is ours and inherited, so there is no port to guess and lose.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gunicorn", "tests.unit.wire.gunicorn_app:application"),
            *("-k", "tests.unit.wire.gunicorn_app.Worker"),
            *("--bind", f"fd://{listening.fileno()}", "--workers", "1"),
            cwd=ROOT,
            env={**os.environ, **environment},
            pass_fds=(listening.fileno(),),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    try:
        yield process, port
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _connect(port: int) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", port))


async def _ask(client: Client, path: bytes) -> bytes:
    await client.send(GET % path)
    return (await client.reply())[2]


async def _ended(client: Client) -> bytes:
    rest = await client.rest()
    client.close()
    await client.writer.wait_closed()
    return rest


def test_sigterm_lets_requests_finish() -> None:
    """The handler is ready before the first request; SIGTERM waits for what is in flight."""

    async def scenario() -> tuple[list[bytes], bytes, dict[str, str], int, bytes]:
        async with _gunicorn() as (process, port):
            idle, slow, go = [await _connect(port) for _ in range(3)]
            served = [await _ask(idle, b"/hot"), await _ask(idle, b"/cold")]
            await slow.send(GET % b"/hot/slow")
            served.append(await _ask(go, b"/hot"))
            await go.send(b"GET /hot/go HTTP/1.1\r\n")  # begun, so it will be waited for
            served.append(await _ask(idle, b"/hot"))
            process.send_signal(signal.SIGTERM)
            assert await _ended(idle) == b""
            await go.send(b"Host: a\r\n\r\n")
            _, headers, body = await slow.reply()
            await go.reply()
            await _ended(slow)
            await _ended(go)
            output, _ = await process.communicate()
            assert process.returncode is not None
            return served, body, headers, process.returncode, output

    served, body, headers, returncode, output = run(scenario())

    assert served == [b"ready", b"cold", b"ready", b"ready"]
    assert (body, headers["connection"]) == (b"slow", "close")
    assert returncode == 0
    assert b"handler stopped" in output


def test_a_handler_that_cannot_start_is_fatal() -> None:
    """gunicorn ends with an error and the reason in its log; it does not try for ever."""

    async def scenario() -> tuple[int | None, bytes]:
        async with _gunicorn(PLANT_FAULT="1") as (process, _):
            output, _ = await process.communicate()
            return process.returncode, output

    returncode, output = run(scenario())

    assert returncode == 3
    assert b"http.handler_not_started" in output
    assert b"a planted fault" in output


def test_no_header_says_who_calls() -> None:
    """The application sees the peer of the socket, as the hot paths do, whatever a header claims:
    keys are bound to networks.
    """

    async def scenario() -> bytes:
        async with _gunicorn() as (process, port):
            client = await _connect(port)
            await client.send(
                b"GET /cold/who HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
            )
            body = (await client.reply())[2]
            process.send_signal(signal.SIGTERM)
            await _ended(client)
            await process.communicate()
            return body

    assert run(scenario()) == b"127.0.0.1"
