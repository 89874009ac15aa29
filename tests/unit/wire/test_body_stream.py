"""Streamed bodies over real sockets: whole or visibly broken, and no faster than they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from modeldefs.wire.http1 import BodyWriter, HttpLimits
from tests.unit.wire.serving import run, serving

GET = b"GET %b HTTP/1.1\r\nHost: db.example\r\n\r\n"
STREAM = GET % b"/hot/stream"
PIECE = b"x" * 9_999 + b"\n"
LAST_CHUNK = b"0\r\n\r\n"


class Pieces:
    """A source of so many pieces; notes what it is told."""

    def __init__(self, count: int, *, cuts_after: int | None = None) -> None:
        self.left = count
        self.written = 0
        self.cuts_after = cuts_after
        self.told: list[str] = []
        self.paused, self.stopped = asyncio.Event(), asyncio.Event()
        self.writer: BodyWriter | None = None

    def begin(self, writer: BodyWriter) -> None:
        """Write as much as is taken."""
        self.writer = writer
        self.resume()

    def resume(self) -> None:
        """Write on."""
        assert self.writer is not None
        while not self.writer.is_paused:
            if self.written == self.cuts_after:
                self.writer.cut(b"why\n")
                return
            if not self.left:
                self.writer.end()
                return
            self.left -= 1
            self.written += 1
            self.writer.write(PIECE)
        self.paused.set()

    def shutdown(self) -> None:
        """Break off."""
        self.told.append("shutdown")
        assert self.writer is not None
        self.writer.cut(b"stopping\n")

    def stop(self) -> None:
        """Note it."""
        self.told.append("stop")
        self.stopped.set()


class Faulty(Pieces):
    """Fails when it is asked for more."""

    def resume(self) -> None:
        """Fail behind one piece."""
        assert self.writer is not None
        self.writer.write(PIECE)
        raise RuntimeError("a planted fault")


def body_of(chunked: bytes) -> bytes:
    """Return what the chunks hold; the framing must be right to the last byte that came."""
    body = b""
    while chunked:
        size, _, chunked = chunked.partition(b"\r\n")
        piece = chunked[: int(size, 16)]
        assert chunked[len(piece) : len(piece) + 2] == b"\r\n"
        chunked = chunked[len(piece) + 2 :]
        body += piece
    return body


def test_a_whole_body_ends_with_its_last_chunk_and_the_connection_goes_on() -> None:
    """Every piece arrives in order, then the last chunk, then the reply to the next request."""

    async def scenario() -> tuple[bytes, bytes, str]:
        async with serving() as server:
            server.handler.source = Pieces(5)
            client = await server.client()
            await client.send(STREAM + GET % b"/hot/next")
            head = await client.reader.readuntil(b"\r\n\r\n")
            body = await client.reader.readuntil(LAST_CHUNK)
            return head, body, (await client.said())["path"]

    head, body, following = run(scenario())

    assert b"\r\ntransfer-encoding: chunked\r\n" in head
    assert b"content-length" not in head
    assert PIECE * 5 == body_of(body)
    assert "/hot/next" == following


def test_a_body_that_broke_off_has_no_last_chunk() -> None:
    """Its last line arrives, then the connection is closed, and nothing behind it is answered."""

    async def scenario() -> tuple[bytes, int]:
        async with serving() as server:
            server.handler.source = Pieces(50, cuts_after=3)
            client = await server.client()
            await client.send(STREAM + GET % b"/hot/next")
            return await client.rest(), len(server.handler.requests)

    answer, asked = run(scenario())

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not body.endswith(LAST_CHUNK)
    assert PIECE * 3 + b"why\n" == body_of(body)
    assert 1 == asked


def test_a_source_that_fails_breaks_the_body_off() -> None:
    """A fault in the source is no end: the client sees that something is missing."""

    async def scenario() -> tuple[bytes, list[str]]:
        async with serving() as server:
            source = server.handler.source = Faulty(50)
            client = await server.client()
            await client.send(STREAM)
            return await client.rest(), source.told

    answer, told = run(scenario())

    assert PIECE == body_of(answer.partition(b"\r\n\r\n")[2])
    assert ["stop"] == told


def test_head_has_no_body_and_stops_the_source() -> None:
    """HEAD gets the head alone; the next request on the connection is answered."""

    async def scenario() -> tuple[dict[str, str], list[str], int, str]:
        async with serving() as server:
            source = server.handler.source = Pieces(50)
            client = await server.client()
            await client.send(b"HEAD /hot/stream HTTP/1.1\r\nHost: a\r\n\r\n" + GET % b"/hot/next")
            _, headers, _ = await client.reply(head_only=True)
            return headers, source.told, source.written, (await client.said())["path"]

    headers, told, written, following = run(scenario())

    assert "application/jsonl" == headers["content-type"]
    assert (["stop"], 0, "/hot/next") == (told, written, following)


def test_nothing_is_made_for_a_client_that_does_not_read() -> None:
    """Writing stops when the client's buffers are full, and goes on to the end when it reads."""
    count = 5_000  # 50 MB, more than any socket holds

    async def scenario() -> tuple[int, bytes]:
        async with serving() as server:
            source = server.handler.source = Pieces(count)
            client = await server.client()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(STREAM)
            await source.paused.wait()
            while not server.connection.flow.write_paused:
                await asyncio.sleep(0)
            written = source.written
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await client.reader.readuntil(b"\r\n\r\n")
            body = b""
            while not body.endswith(LAST_CHUNK):
                body = (body + await client.reader.read(1 << 20))[-100_000:]
            return written, body

    written, body = run(scenario())

    assert written < count / 2
    assert body.endswith(PIECE + b"\r\n" + LAST_CHUNK)


@pytest.mark.parametrize("leaves", ["hangs up", "reads nothing"])
def test_a_client_that_is_gone_stops_the_source(leaves: str) -> None:
    """Who hangs up, and who takes nothing for the time allowed, is made nothing more for."""

    async def scenario() -> tuple[list[str], int]:
        async with serving(limits=HttpLimits(write_s=0.1)) as server:
            source = server.handler.source = Pieces(5_000)
            client = await server.client()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(STREAM)
            await source.paused.wait()
            if leaves == "hangs up":
                client.writer.transport.abort()
            await source.stopped.wait()
            return source.told, len(server.state.connections)

    assert (["stop"], 0) == run(scenario())


def test_a_worker_that_stops_lets_the_source_say_so() -> None:
    """At shutdown a body under way is broken off in its source's own words, and closed."""

    async def scenario() -> tuple[bytes, list[str]]:
        async with serving() as server:
            source = server.handler.source = Pieces(5_000)
            client = await server.client()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(STREAM)
            await source.paused.wait()
            server.connection.shutdown()
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            return await client.rest(), source.told

    answer, told = run(scenario())

    assert answer.endswith(b"stopping\n\r\n")
    assert ["shutdown"] == told


MAKERS: list[Callable[[], bytes]] = [lambda: b"", lambda: PIECE]


@pytest.mark.parametrize("make", MAKERS)
def test_an_empty_piece_does_not_end_a_body(make: Callable[[], bytes]) -> None:
    """An empty chunk would mean the end; an empty piece is not written."""

    class Empty(Pieces):
        def resume(self) -> None:
            assert self.writer is not None
            self.writer.write(make())
            self.writer.write(b"")
            self.writer.write(b"end\n")
            self.writer.end()

    async def scenario() -> bytes:
        async with serving() as server:
            server.handler.source = Empty(0)
            client = await server.client()
            await client.send(STREAM)
            await client.reader.readuntil(b"\r\n\r\n")
            return await client.reader.readuntil(b"\r\n" + LAST_CHUNK)

    assert make() + b"end\n" == body_of(run(scenario()))


class OneHeap(Pieces):
    """Writes more than fits any buffer, and ends."""

    def resume(self) -> None:
        """Write it all."""
        assert self.writer is not None
        self.writer.write(b"x" * 16_000_000)
        self.writer.end()
        self.paused.set()


def test_the_tail_of_a_closing_connection_has_the_time_of_a_reader() -> None:
    """A whole body is whole also where the connection ends with it and its client is slow."""
    limits = HttpLimits(linger_s=0.01, write_s=20.0)

    async def scenario() -> tuple[float, bytes]:
        async with serving(limits=limits) as server:
            source = server.handler.source = OneHeap(1)
            client = await server.client()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(STREAM.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            await source.paused.wait()
            (connection,) = server.state.connections
            left_s = connection.deadline - asyncio.get_running_loop().time()  # type: ignore[union-attr]
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            return left_s, await client.rest()

    left_s, answer = run(scenario())

    assert left_s > 10
    assert answer.endswith(LAST_CHUNK)
    assert 16_000_000 < len(answer)
