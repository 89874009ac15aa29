"""Streams on real sockets with peers that break every rule: whoever comes next is served."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldefs.wire.frames import (
    ENDPOINT_CANCEL,
    ENDPOINT_PING,
    FRAME_PAYLOAD_BYTES_MAX,
    NO_REQUEST,
    pack_request,
)
from tests.property.test_stream_server import call
from tests.unit.wire.peers import FLAWS, KINDS, STALLS, Peer, client_of, peer, raw_stream
from tests.unit.wire.serving import run
from tests.unit.wire.streaming import LATER, LIMITS

FILLING = b"\xff" * 400_000

QUICK = replace(LIMITS, connect_s=0.05)
PATIENT = replace(LIMITS, connect_s=15.0)
LOST = {b"refused", b"shard-reset", b"shard-untrusted"}


async def _serves(listening: Peer) -> None:
    """Check that a fresh stream is served."""
    async with client_of(listening) as (calls, _):
        calls.send(b"fresh")
        assert {0: [(200, b"fresh")]} == await calls.all_done()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(flaws=st.lists(st.sampled_from(FLAWS), min_size=1, max_size=5))
def test_a_client_outlives_a_flapping_node(kind: str, flaws: list[str]) -> None:
    """Whatever a node does to the first connections, in any order: each call is answered once,
    each attempt is one connection, and the first node that serves is used.
    """

    stalls = not set(STALLS).isdisjoint(flaws)
    limits = QUICK if stalls else PATIENT

    async def scenario() -> tuple[int, set[bytes], list[tuple[int, bytes]]]:
        async with (
            peer(kind, flaws, limits=limits) as listening,
            client_of(listening, limits=limits) as (calls, _),
        ):
            for _ in range(len(flaws) + 1):
                while not calls.client.connected:
                    await asyncio.sleep(0)
                calls.send(b"x")
                if [*(await calls.all_done()).values()][-1] == [(200, b"x")]:
                    break
            outcomes = await calls.all_done()
            told = [only for (only,) in outcomes.values()]
            return listening.connections, {code for status, code in told if not status}, told

    connections, lost, told = run(scenario())

    assert stalls or connections <= len(flaws) + 1
    assert lost <= LOST
    assert (200, b"x") == told[-1]


@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_flaw_costs_one_connection(kind: str, flaw: str) -> None:
    """One bad connection, then the next: neither a hammering client nor one that gives up."""

    limits = QUICK if flaw in STALLS else PATIENT

    async def scenario() -> tuple[int, list[tuple[bool, str]]]:
        async with (
            peer(kind, [flaw], limits=limits) as listening,
            client_of(listening, limits=limits) as (calls, states),
        ):
            calls.send(b"one")
            await calls.all_done()
            while listening.connections < 2 or not calls.client.connected:
                await asyncio.sleep(0)
            return listening.connections, states.seen[:]

    connections, seen = run(scenario())

    assert 2 == connections or flaw in STALLS
    assert (True, "") == seen[-1]
    assert all(reason for connected, reason in seen if not connected)


def _ends(garbage: bytes) -> bool:
    """Is it seen to be garbage once the filling came, not taken for a frame that is larger?"""
    length = int.from_bytes((garbage + FILLING)[:4], "little")
    return length < len(FILLING) // 2 or length > FRAME_PAYLOAD_BYTES_MAX


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(rounds=st.lists(st.binary(min_size=1, max_size=300).filter(_ends), min_size=1, max_size=4))
def test_garbage_behind_the_handshake_harms_nobody_else(kind: str, rounds: list[bytes]) -> None:
    """Garbage ends its own stream, whose calls are cancelled; another stream goes on all the
    while, and the next one is served.
    """

    async def scenario() -> None:
        async with peer(kind) as listening, client_of(listening) as (calls, _):
            for number, garbage in enumerate(rounds):
                async with raw_stream(listening) as raw:
                    waiting = raw.frames.frame(pack_request(call(7, LATER)))
                    raw.writer.write(waiting + garbage + FILLING)
                    assert await raw.ended()
                calls.send(b"%d" % number)
                await calls.all_done()
            await _serves(listening)
            started = [record for record, _ in listening.node.waiting]
            assert len(started) == len(listening.node.cancelled)
            assert {(200, b"%d" % n) for n in range(len(rounds))} == {
                told for (told,) in calls.outcomes.values()
            }

    run(scenario())


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_reader_is_waited_for_and_then_served(kind: str) -> None:
    """A dispatcher that takes no answers is not read from either: what a node holds for it stays
    bounded; when it reads again, every call has its one answer. Others do not notice.
    """
    count, size = 20_000, 4_096

    async def scenario() -> tuple[int, list[int]]:
        async with peer(kind) as listening, raw_stream(listening) as raw:
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for number in range(1, count + 1):
                record = call(number, body=bytes(size))
                raw.writer.write(raw.frames.frame(pack_request(record)))
            node_side = listening.node.transports[0]
            while node_side.is_reading():
                await asyncio.sleep(0)
            held = len(listening.node.requests)
            await _serves(listening)
            assert held + 1 == len(listening.node.requests)
            raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
            said = await raw.until(lambda said: len(said) == count)
            return held, [answer.request_id for answer in said]

    held, answered = run(scenario())

    assert held * size < 32 * 1024 * 1024
    assert list(range(1, count + 1)) == answered


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("endpoint", [ENDPOINT_PING, ENDPOINT_CANCEL])
def test_a_flood_of_control_records_is_borne(kind: str, endpoint: int) -> None:
    """A million pings or cancels: calls behind them and on other streams are answered."""
    record = pack_request(call(NO_REQUEST, endpoint, b""))

    async def scenario() -> int:
        async with peer(kind) as listening, raw_stream(listening) as raw:
            for _ in range(100):
                raw.writer.write(raw.frames.frame(record * 10_000))
                if endpoint == ENDPOINT_CANCEL:
                    await raw.writer.drain()
            raw.writer.write(raw.frames.frame(pack_request(call(1))))
            await _serves(listening)
            said = await raw.until(lambda said: said[-1:] != [] and said[-1].request_id == 1)
            return len(said)

    expected = 1_000_001 if endpoint == ENDPOINT_PING else 1
    assert expected == run(scenario())
