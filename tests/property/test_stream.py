"""However a node's bytes are damaged, a client answers every call once and trusts nothing bad."""

from __future__ import annotations

import asyncio
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from modeldefs.wire.frames import (
    AnswerRecord,
    FrameWriter,
    RequestRecord,
    pack_answer,
    pack_request,
)
from modeldefs.wire.handshake import StreamIdentity, accept_upgrade, upgrade_request
from modeldefs.wire.http1 import HttpRequest
from modeldefs.wire.link import Link, StreamLimits
from modeldefs.wire.signing import NonceCache

IDENTITY = StreamIdentity(dispatcher="d1", shard="alpha", bundle="b1", pair_key=b"p" * 32)
CALLS = 6
Outcomes = dict[int, list[tuple[int, bytes]]]


class _Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    close = abort


def _granted(hello: bytes) -> tuple[bytes, FrameWriter]:
    lines = hello.decode().split("\r\n")[1:-2]
    pairs = [line.split(": ") for line in lines]
    headers = [(name.lower().encode(), value.encode()) for name, value in pairs]
    accepted = accept_upgrade(
        HttpRequest(b"GET", b"/_stream", b"", headers, b"", ""),
        pair_key_of=lambda _: IDENTITY.pair_key,
        shard="alpha",
        bundle="b1",
        nonces=NonceCache(),
        now=0.0,
        nonce=bytes(16),
    )
    assert isinstance(accepted, tuple)
    return accepted[0], FrameWriter(accepted[1].keys.sending)


async def _play(answered: list[int], damage: int, place: int, cut: int) -> tuple[Outcomes, bool]:
    hello = upgrade_request(IDENTITY, host="h", nonce=bytes(16), now=0.0)
    link = Link(
        identity=IDENTITY,
        nonce=bytes(16),
        hello=hello,
        limits=StreamLimits(),
        on_released=lambda _link, _reason: None,
    )
    wire = _Wire()
    link.connection_made(wire)
    granted, writer = _granted(hello)
    for at in range(0, len(granted), cut):
        link.data_received(granted[at : at + cut])
    outcomes: Outcomes = {number: [] for number in range(1, CALLS + 1)}
    for number, told in outcomes.items():
        record = RequestRecord(number, 1, 0, 0, 0, 0, b"")
        link.send(record.request_id, pack_request(record), partial(_tell, told))
    await asyncio.sleep(0)  # a tick, in which they leave
    frames = [writer.frame(pack_answer(AnswerRecord(n, 200, b"%d" % n))) for n in answered]
    damaged = [
        lambda: frames,
        lambda: [*frames[: place % len(frames)], *frames[place % len(frames) + 1 :], b"\0" * 30],
        lambda: [*frames, frames[place % len(frames)]],
        lambda: frames[::-1],
        lambda: [_flipped(b"".join(frames), place)],
        lambda: [b"".join(frames)[: -(1 + place % 20)]],
    ][damage]()
    data = b"".join(damaged)
    for at in range(0, len(data), cut):
        link.data_received(data[at : at + cut])
    link.connection_lost(None)
    return outcomes, wire.closed


def _tell(told: list[tuple[int, bytes]], status: int, body: bytes) -> None:
    told.append((status, body))


def _flipped(data: bytes, place: int) -> bytes:
    place %= len(data)
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


@settings(deadline=None)
@given(
    answered=st.lists(st.integers(0, CALLS + 2), min_size=1, max_size=8),
    damage=st.integers(0, 5),
    place=st.integers(0, 1000),
    cut=st.sampled_from([1, 3, 17, 10_000]),
)
def test_every_call_is_answered_once_and_only_by_the_node(
    answered: list[int], damage: int, place: int, cut: int
) -> None:
    """Dropped, replayed, reordered, altered, cut or doubled answers: one ``done`` per call."""
    outcomes, _ = asyncio.run(_play(answered, damage, place, cut))
    failures = {(0, b"shard-reset"), (0, b"shard-untrusted")}

    for number, told in outcomes.items():
        assert len(told) == 1
        assert told[0] in failures | {(200, b"%d" % number)}


def test_undamaged_answers_all_arrive() -> None:
    """The play above is not all failure: without damage each answer is delivered."""
    outcomes, _ = asyncio.run(_play([3, 1, 2, 6, 5, 4], 0, 0, 7))

    assert outcomes == {n: [(200, b"%d" % n)] for n in range(1, CALLS + 1)}
