"""Streams over real sockets: every call is answered once, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from modeldefs.wire.frames import (
    DEPART_RECORDS,
    ENDPOINT_PING,
    FrameWriter,
    RequestRecord,
    SessionKeys,
    pack_request,
)
from modeldefs.wire.handshake import Session
from modeldefs.wire.stream import StreamClient, backoff_s
from tests.unit.wire.serving import run, serving
from tests.unit.wire.streaming import FAULT, IDENTITY, LATER, LIMITS, NOW, Node, States, streaming


def test_calls_are_answered_in_any_order() -> None:
    """Many calls share a connection; a slow one holds none of the others up."""

    async def scenario() -> tuple[dict[int, list[tuple[int, bytes]]], RequestRecord]:
        async with streaming() as stream:
            stream.calls.send(b"slow", endpoint=LATER)
            for number in range(500):
                stream.calls.send(b"%d" % number)
            while len(stream.node.requests) < 501:  # they come in parts
                await asyncio.sleep(0)
            while stream.client.in_flight > 1:
                await asyncio.sleep(0)
            record, answer = stream.node.waiting[0]
            answer(404, b"late")
            return await stream.calls.all_done(), record

    outcomes, record = run(scenario())

    assert outcomes == {0: [(404, b"late")], **{n + 1: [(200, b"%d" % n)] for n in range(500)}}
    assert (record.deadline_ms, record.epoch, record.bucket) == (1000, 3, 5)


@pytest.mark.parametrize(
    ("calls", "frames"),
    [(DEPART_RECORDS - 1, 1), (DEPART_RECORDS, 1), (3 * DEPART_RECORDS + 1, 4)],
)
def test_calls_of_one_tick_leave_together(calls: int, frames: int) -> None:
    """What is sent in one loop tick shares a MAC and a write; what is much leaves in parts, so
    that the node has begun before the tick is over. The answers likewise."""

    async def scenario() -> tuple[int, int]:
        async with streaming() as stream:
            for _ in range(calls):
                stream.calls.send(b"x")
            await stream.calls.all_done()
            node = stream.node.streams[0]
            return node._reader._sequence, node._writer._sequence

    received, answered = run(scenario())

    assert received == frames
    assert 1 <= answered <= frames


def test_done_is_never_called_from_within_send() -> None:
    """A caller may note the request id before it hears of the call, even when it is refused."""

    async def scenario() -> tuple[list[tuple[int, bytes]], dict[int, list[tuple[int, bytes]]]]:
        async with streaming() as stream:
            await stream.client.close()
            stream.calls.send(b"x")
            at_once = list(stream.calls.outcomes[0])
            return at_once, await stream.calls.all_done()

    assert run(scenario()) == ([], {0: [(0, b"refused")]})


@pytest.mark.parametrize(
    ("_case", "facts", "code"),
    [
        ("another key", {"key": b"q" * 32}, "unauthorized"),
        ("clock behind", {"now": NOW - 31}, "clock-skew"),
        ("clock ahead", {"now": NOW + 31}, "clock-skew"),
        ("another shard", {"shard": "beta"}, "wrong-shard"),
        ("another bundle", {"bundle": "b2"}, "contract-mismatch"),
    ],
)
def test_a_node_that_refuses_says_why(_case: str, facts: dict[str, Any], code: str) -> None:
    """A refused handshake leaves the client unconnected, with the problem's code."""

    async def scenario() -> tuple[bool, str, list[tuple[bool, str]]]:
        async with streaming(**facts) as stream:
            return stream.client.connected, stream.client.last_refusal, stream.states.seen

    assert run(scenario()) == (False, code, [(False, code)])


def test_no_node_there_is_reported() -> None:
    """Nobody listening is no refusal; the client keeps trying."""

    async def scenario() -> tuple[bool, str, list[tuple[bool, str]]]:
        async with serving() as server:
            port = server.port
        states = States()
        client = StreamClient(
            host="127.0.0.1", port=port, identity=IDENTITY, on_state=states, limits=LIMITS
        )
        await client.start()
        await client.close()
        return client.connected, client.last_refusal, states.seen

    assert run(scenario()) == (False, "", [(False, "refused")])


def test_an_impostor_is_not_believed() -> None:
    """Who answers 101 without the pair key gets nothing, and is called untrusted."""

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        nonce = b"Shardpoint-Nonce: " + b"00" * 16
        mac = b"Shardpoint-Mac: " + b"00" * 32
        writer.write(b"HTTP/1.1 101 Yes\r\n" + nonce + b"\r\n" + mac + b"\r\n\r\n")
        await reader.read()
        writer.close()

    async def scenario() -> tuple[bool, str]:
        server = await asyncio.start_server(impostor, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, streaming(port=port) as stream:
            return stream.client.connected, stream.client.last_refusal

    assert run(scenario()) == (False, "shard-untrusted")


def test_a_lost_connection_answers_all_and_is_opened_again() -> None:
    """When the connection breaks every call in flight hears so once, and new ones go through."""

    async def scenario() -> tuple[
        dict[int, list[tuple[int, bytes]]], list[tuple[bool, str]], list[int]
    ]:
        async with streaming() as stream:
            ids = [stream.calls.send(b"x", endpoint=LATER) for _ in range(3)]
            while len(stream.node.waiting) < 3:
                await stream.node.asked.wait()
                stream.node.asked.clear()
            stream.node.transports[0].abort()
            await stream.states.until(3)
            stream.calls.send(b"again")
            outcomes = await stream.calls.all_done()
            for _, answer in stream.node.waiting:
                answer(200, b"too late")
            assert sorted(stream.node.cancelled) == ids
            return outcomes, stream.states.seen[:], ids

    outcomes, states, _ = run(scenario())

    assert outcomes == {n: [(0, b"shard-reset")] for n in range(3)} | {3: [(200, b"again")]}
    assert states == [(True, ""), (False, "shard-reset"), (True, "")]


def test_a_forgotten_call_is_cancelled_and_hears_nothing() -> None:
    """Forgetting stops the node's work; a late answer is dropped; an unsent call never leaves."""

    async def scenario() -> tuple[list[int], dict[int, list[tuple[int, bytes]]], int, list[int]]:
        async with streaming() as stream:
            first = stream.calls.send(b"x", endpoint=LATER)
            await stream.node.asked.wait()
            stream.client.forget(first)
            unsent = stream.calls.send(b"never", endpoint=LATER)
            stream.client.forget(unsent)
            stream.client.forget(12345)
            await stream.node.cancel_heard.wait()
            stream.node.waiting[0][1](200, b"late")
            stream.calls.outcomes.pop(1)
            stream.calls.send(b"next")
            outcomes = dict(stream.calls.outcomes)
            while not outcomes[2]:
                await asyncio.sleep(0)
            return stream.node.cancelled, outcomes, stream.node.streams[0].in_flight, [first]

    cancelled, outcomes, in_flight, expected = run(scenario())

    assert cancelled == expected
    assert outcomes == {0: [], 2: [(200, b"next")]}
    assert in_flight == 0


def test_too_many_calls_are_saturated_here_and_overloaded_there() -> None:
    """Each end bounds what is in flight by itself and says so; nothing waits unseen."""

    async def scenario() -> tuple[list[tuple[int, bytes]], int, str]:
        async with streaming(
            limits=replace(LIMITS, in_flight_max=3), node_limits=replace(LIMITS, in_flight_max=2)
        ) as stream:
            for _ in range(4):
                stream.calls.send(b"x", endpoint=LATER)
            while not (stream.calls.outcomes[2] and stream.calls.outcomes[3]):
                await asyncio.sleep(0)
            status, body = stream.calls.outcomes[2][0]
            return stream.calls.outcomes[3], status, msgspec.msgpack.decode(body)["code"]

    assert run(scenario()) == ([(0, b"saturated")], 503, "overloaded")


def test_a_fault_of_the_node_is_one_answer() -> None:
    """A handler that raises answers 500 internal; the others in the frame are served."""

    async def scenario() -> tuple[int, str, list[tuple[int, bytes]]]:
        async with streaming() as stream:
            stream.calls.send(b"x", endpoint=FAULT)
            stream.calls.send(b"y")
            outcomes = await stream.calls.all_done()
            status, body = outcomes[0][0]
            return status, msgspec.msgpack.decode(body)["code"], outcomes[1]

    assert run(scenario()) == (500, "internal", [(200, b"y")])


def test_a_too_large_answer_is_refused_and_the_stream_lives() -> None:
    """An answer that fits no frame becomes a problem."""

    async def scenario() -> tuple[int, str, list[tuple[int, bytes]]]:
        node_limits = replace(LIMITS, frame_payload_bytes_max=300)
        async with streaming(node_limits=node_limits) as stream:
            stream.calls.send(b"x", endpoint=LATER)
            await stream.node.asked.wait()
            stream.node.waiting[0][1](200, b"y" * 400)
            await stream.calls.all_done()
            stream.calls.send(b"y")
            outcomes = await stream.calls.all_done()
            status, body = outcomes[0][0]
            return status, msgspec.msgpack.decode(body)["code"], outcomes[1]

    assert run(scenario()) == (400, "result-too-large", [(200, b"y")])


def test_large_calls_go_through_both_ways_at_once() -> None:
    """Pausing and resuming on both ends loses nothing and never locks up."""
    body = b"z" * 400_000

    async def scenario() -> set[tuple[int, int]]:
        async with streaming() as stream:
            for _ in range(30):
                stream.calls.send(body)
            outcomes = await stream.calls.all_done()
            return {(status, len(answer)) for [(status, answer)] in outcomes.values()}

    assert run(scenario()) == {(200, len(body))}


def test_a_stopping_node_answers_what_it_has() -> None:
    """On shutdown no new call is sent, those in flight are answered, then the client goes."""

    async def scenario() -> tuple[dict[int, list[tuple[int, bytes]]], list[tuple[bool, str]]]:
        async with streaming() as stream:
            stream.calls.send(b"x", endpoint=LATER)
            await stream.node.asked.wait()
            for connection in tuple(stream.server.state.connections):
                connection.shutdown()
            await stream.states.until(2)
            stream.node.waiting[0][1](200, b"done")
            outcomes = await stream.calls.all_done()
            while stream.node.transports[0].is_closing() is False:
                await asyncio.sleep(0)
            return outcomes, stream.states.seen[:2]

    outcomes, states = run(scenario())

    assert outcomes == {0: [(200, b"done")]}
    assert states == [(True, ""), (False, "draining")]


def test_a_silent_node_is_given_up() -> None:
    """A node that neither answers nor pongs loses the connection: its calls are reset."""

    async def scenario() -> dict[int, list[tuple[int, bytes]]]:
        async with streaming(limits=replace(LIMITS, silence_s=0.05)) as stream:
            stream.calls.send(b"x", endpoint=LATER)
            await stream.node.asked.wait()
            stream.node.transports[0].pause_reading()
            return await stream.calls.all_done()

    assert run(scenario()) == {0: [(0, b"shard-reset")]}


def test_an_idle_stream_stays_open() -> None:
    """Pings keep a stream without calls alive through many silences."""

    async def scenario() -> list[tuple[bool, str]]:
        limits = replace(LIMITS, silence_s=0.01)
        async with streaming(limits=limits) as stream:
            while stream.node.streams[0]._writer._sequence < 8:
                await asyncio.sleep(0)
            return stream.states.seen[:]

    assert run(scenario()) == [(True, "")]


def test_backoff_doubles_to_its_limit_with_jitter() -> None:
    """Attempts spread out: 25 to 50 ms first, then doubling up to 1 to 2 s."""
    limits = replace(LIMITS, backoff_first_s=0.05, backoff_max_s=2.0)
    waits = [backoff_s(attempt, chance=0.0, limits=limits) for attempt in range(8)]

    assert waits == [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff_s(10_000, chance=1.0, limits=limits) == 2.0


class _Wire(asyncio.Transport):
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


BAD_BYTES = {
    "garbage": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "oversized": struct.pack("<I", 2**32 - 1) + bytes(16),
    "empty": bytes(20),
    "wrong MAC": struct.pack("<I", 30) + bytes(16) + bytes(30),
}
RECORD = RequestRecord(1, 1, 0, 0, 0, 0, b"x")
BAD_PAYLOADS = {
    "cut record": pack_request(RECORD) + pack_request(RECORD)[:-1],
    "id twice": pack_request(RECORD) * 2,
    "id zero": pack_request(RECORD) + pack_request(RECORD._replace(request_id=0)),
    "reserved": pack_request(RECORD) + pack_request(RECORD._replace(endpoint=ENDPOINT_PING - 1)),
}


@pytest.mark.parametrize("case", [*BAD_BYTES, *BAD_PAYLOADS])
def test_a_bad_frame_starts_nothing_and_ends_the_stream(case: str) -> None:
    """Bad bytes, or a right frame with a wrong record: no call of it starts, all are cancelled."""

    async def scenario() -> tuple[bool, list[RequestRecord], list[int]]:
        node, wire = Node(LIMITS), _Wire()
        stream = node.stream(Session("d1", SessionKeys(b"s", b"r")))
        stream.connection_made(wire)
        writer = FrameWriter(b"r")
        stream.data_received(writer.frame(pack_request(RECORD._replace(request_id=9, endpoint=7))))
        before = list(node.requests)
        bad = BAD_BYTES.get(case) or writer.frame(BAD_PAYLOADS[case])
        stream.data_received(bad)
        stream.data_received(writer.frame(pack_request(RECORD)))
        return wire.closed, node.requests[len(before) :], node.cancelled

    assert run(scenario()) == (True, [], [9])
