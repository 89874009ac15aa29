"""Whatever a dispatcher's bytes are, a node starts only honest calls and ends what it began."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from modeldefs.wire.frames import (
    ENDPOINT_CANCEL,
    ENDPOINT_PING,
    HEAD_BYTES,
    NO_BUCKET,
    NO_REQUEST,
    AnswerRecord,
    FrameReader,
    FrameWriter,
    RequestRecord,
    SessionKeys,
    pack_request,
    unpack_answers,
)
from modeldefs.wire.handshake import Session
from modeldefs.wire.stream_server import STATUS_PONG, StreamServer
from tests.unit.wire.streaming import ECHO, FAULT, LATER, LIMITS, Node

PAYLOAD_MAX = 400
TIGHT = replace(LIMITS, in_flight_max=4, frame_payload_bytes_max=PAYLOAD_MAX)
TO_NODE, TO_DISPATCHER = b"r" * 32, b"s" * 32


class Wire(asyncio.Transport):
    """A transport that keeps what was written and whether reading is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = self.paused = False
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it; a closed transport is never written to."""
        assert not self.closed
        self.written += bytes(data)

    def is_closing(self) -> bool:
        """Say whether it was closed."""
        return self.closed

    def abort(self) -> None:
        """Close."""
        self.closed = True

    def pause_reading(self) -> None:
        """Pause."""
        self.paused = True

    def resume_reading(self) -> None:
        """Resume."""
        self.paused = False


class Play:
    """A node's end, and a dispatcher whose bytes we choose."""

    def __init__(self) -> None:
        self.node = Node(TIGHT)
        self.wire = Wire()
        session = Session("d1", SessionKeys(sending=TO_DISPATCHER, receiving=TO_NODE))
        self.stream: StreamServer = self.node.stream(session)
        self.writer = FrameWriter(TO_NODE, payload_bytes_max=1_000_000)
        self.stream.connection_made(self.wire)

    def frame(self, *records: RequestRecord) -> bytes:
        """Return the next frame with these records."""
        return self.writer.frame(b"".join(pack_request(record) for record in records))

    async def say(self, data: bytes, cuts: Sequence[int] = ()) -> None:
        """Let these bytes arrive, in pieces."""
        places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for start, end in pairwise(places):
            if start < end:
                self.stream.data_received(data[start:end])
                # What is kept of a frame that is not whole yet is never more than one frame.
                assert len(self.stream._reader._partial) < HEAD_BYTES + PAYLOAD_MAX
        await asyncio.sleep(0)

    def said(self) -> list[AnswerRecord]:
        """Return every answer there was; all frames of them are right."""
        reader = FrameReader(TO_DISPATCHER)
        return [
            AnswerRecord(*answer)
            for part in reader.feed(self.wire.written)
            for answer in unpack_answers(part)
        ]

    @property
    def begun(self) -> list[int]:
        """Ids of the calls that were started, in order."""
        return [record.request_id for record in self.node.requests]


def call(request_id: int, endpoint: int = ECHO, body: bytes = b"x") -> RequestRecord:
    """Return a call."""
    return RequestRecord(request_id, endpoint, 0, 1_000, 1, NO_BUCKET, body)


def flipped(data: bytes, place: int) -> bytes:
    """Return the bytes with one bit changed."""
    place %= len(data)
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


Damage = Callable[[list[bytes], int, bytes], list[bytes]]
DAMAGES: dict[str, Damage] = {
    "garbage between": lambda f, at, junk: [*f[:at], junk or b"\0", *f[at:]],
    "garbage in front": lambda f, _, junk: [junk + bytes(HEAD_BYTES), *f],
    "a frame dropped": lambda f, at, _: [*f[:at], *f[at + 1 :]],
    "a frame twice": lambda f, at, _: [*f[: at + 1], *f[at:]],
    "all frames again": lambda f, *_: [*f, *f],
    "two frames swapped": lambda f, at, _: [*f[:at], *f[at : at + 2][::-1], *f[at + 2 :]],
    "a bit flipped": lambda f, at, junk: [
        *f[:at], flipped(f[at], int.from_bytes(junk, "big")), *f[at + 1 :],
    ],
    "a frame cut short": lambda f, at, junk: [
        *f[:at], f[at][: -1 - len(junk) % (len(f[at]) - 1)], *f[at + 1 :],
    ],
    "a length of nothing": lambda f, at, _: [*f[:at], bytes(HEAD_BYTES), *f[at:]],
    "a length too large": lambda f, at, _: [
        *f[:at], struct.pack("<I", PAYLOAD_MAX + 1) + bytes(16), *f[at:],
    ],
    "the largest length": lambda f, at, _: [*f[:at], b"\xff" * HEAD_BYTES, *f[at:]],
}  # fmt: skip


@settings(max_examples=300)
@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    kinds=st.lists(st.sampled_from([ECHO, LATER, FAULT]), min_size=15, max_size=15),
    damage=st.sampled_from(sorted(DAMAGES)),
    at=st.integers(0, 4),
    junk=st.binary(max_size=40),
    cuts=st.lists(st.integers(0, 5_000), max_size=12),
)
def test_damage_starts_nothing_and_ends_what_was_begun(
    sizes: list[int], kinds: list[int], damage: str, at: int, junk: bytes, cuts: list[int]
) -> None:
    """Only calls of frames before the damage are started, each once; those not answered are
    cancelled once; after a bad frame nothing is started, written or kept.
    """

    async def scenario() -> None:
        play = Play()
        numbers = iter(range(1, 16))
        calls = [[call(n, kinds[n - 1]) for n in islice(numbers, size)] for size in sizes]
        frames = [play.frame(*records) for records in calls]
        place = at % len(frames)
        sent = b"".join(DAMAGES[damage](frames, place, junk))
        await play.say(sent, cuts)
        honest = [record.request_id for records in calls for record in records]
        begun = play.begun
        in_flight = play.stream.in_flight
        waiting = [record.request_id for record, _ in play.node.waiting]

        assert play.wire.closed or in_flight == len(waiting)
        play.stream.data_received(play.frame(call(99)))
        play.stream.connection_lost(None)
        for _, answer in play.node.waiting:
            answer(200, b"too late")
        await asyncio.sleep(0)

        assert 99 not in play.begun or not play.wire.closed
        assert begun == honest[: len(begun)]
        assert sorted(play.node.cancelled) == sorted(waiting)
        assert {a.request_id for a in play.said()}.isdisjoint(waiting)
        assert 0 == play.stream.in_flight

    asyncio.run(scenario())


RECORDS = st.one_of(
    st.builds(call, st.integers(0, 8), st.sampled_from([ECHO, LATER, LATER, FAULT])),
    st.builds(call, st.integers(0, 8), st.just(ENDPOINT_CANCEL)),
    st.builds(call, st.just(NO_REQUEST), st.just(ENDPOINT_PING)),
    st.builds(call, st.integers(1, 8), st.sampled_from([0xFF00, 0xFFFC, 0xFFFF])),
)
STEPS = st.one_of(st.lists(RECORDS, min_size=1, max_size=6), st.integers(0, 7))


def _is_right(records: list[RequestRecord], in_flight: set[int]) -> bool:
    started = [r.request_id for r in records if r.endpoint < 0xFF00]
    reserved = {r.endpoint for r in records} & {0xFF00, 0xFFFC, 0xFFFF}
    return (
        not reserved
        and NO_REQUEST not in started
        and len(started) == len(set(started))
        and in_flight.isdisjoint(started)
    )


@settings(max_examples=300)
@given(steps=st.lists(STEPS, max_size=25))
def test_a_dispatcher_that_holds_the_key_and_breaks_the_rules(
    steps: list[list[RequestRecord] | int],
) -> None:
    """Signed frames of any records: every call is answered or cancelled, once, more than may be in
    flight are refused, and a record that breaks the rules ends the stream before its frame's
    calls are started.
    """

    async def scenario() -> None:
        play, model = Play(), Model()
        for step in steps:
            if isinstance(step, int):
                model.answer_late(play, step)
                continue
            before = len(play.begun)
            await play.say(play.frame(*step))
            if not model.is_right(step):
                assert play.wire.closed
                assert before == len(play.begun)
                break
            model.take(play, step)
            assert len(model.in_flight) == play.stream.in_flight <= TIGHT.in_flight_max
        await asyncio.sleep(0)
        said = play.said()
        assert play.wire.closed or model.pongs == sum(a.status == STATUS_PONG for a in said)
        assert play.wire.closed or sorted(model.answered) == sorted(
            answer.request_id for answer in said if answer.request_id
        )
        play.stream.connection_lost(None)

        assert sorted([*model.cancelled, *model.in_flight]) == sorted(play.node.cancelled)

    asyncio.run(scenario())


class Model:
    """What a node's end has to do about records, in as few words as can be."""

    def __init__(self) -> None:
        self.in_flight: set[int] = set()
        self.cancelled: list[int] = []
        self.answered: list[int] = []
        self.pongs = 0

    def is_right(self, records: list[RequestRecord]) -> bool:
        """Say whether a frame of these breaks no rule."""
        started = [r.request_id for r in records if r.endpoint < 0xFF00]
        unknown = {r.endpoint for r in records} & {0xFF00, 0xFFFC, 0xFFFF}
        doubled = len(started) != len(set(started)) or not self.in_flight.isdisjoint(started)
        return not unknown and not doubled and NO_REQUEST not in started

    def take(self, play: Play, records: list[RequestRecord]) -> None:
        """Follow a right frame."""
        for record in records:
            if record.endpoint == ENDPOINT_PING:
                self.pongs += 1
            elif record.endpoint == ENDPOINT_CANCEL:
                if record.request_id in self.in_flight:
                    self.in_flight.discard(record.request_id)
                    self.cancelled.append(record.request_id)
                    _drop(play.node, record.request_id)
            elif record.endpoint == LATER and len(self.in_flight) < TIGHT.in_flight_max:
                self.in_flight.add(record.request_id)
            else:
                self.answered.append(record.request_id)

    def answer_late(self, play: Play, which: int) -> None:
        """Answer one of the calls that wait."""
        if play.node.waiting:
            record, answer = play.node.waiting.pop(which % len(play.node.waiting))
            answer(200, b"late")
            self.in_flight.discard(record.request_id)
            self.answered.append(record.request_id)


def _drop(node: Node, request_id: int) -> None:
    node.waiting = [(r, answer) for r, answer in node.waiting if r.request_id != request_id]


def test_floods_of_cancels_and_pings_cost_nothing_that_stays() -> None:
    """Cancels of calls that are not there are nothing; pings are pongs, and nothing is kept."""

    async def scenario() -> tuple[int, list[int], int]:
        play = Play()
        play.stream = StreamServer(
            session=play.stream.session,
            on_request=play.node.on_request,
            on_cancel=play.node.on_cancel,
            limits=LIMITS,
        )
        play.stream.connection_made(play.wire)
        for start in range(0, 100_000, 1_000):
            cancels = [call(n + 1, ENDPOINT_CANCEL, b"") for n in range(start, start + 1_000)]
            play.stream.data_received(play.frame(*cancels))
        assert play.wire.written == b""
        pings = [call(NO_REQUEST, ENDPOINT_PING, b"")] * 1_000
        for _ in range(20):
            play.stream.data_received(play.frame(*pings))
            await asyncio.sleep(0)
        play.stream.data_received(play.frame(call(1)))
        await asyncio.sleep(0)
        said = play.said()
        kept = len(play.stream._open) + len(play.stream._unsent)
        return len(said), play.node.cancelled, kept

    assert (20_001, [], 0) == asyncio.run(scenario())


def test_a_dispatcher_that_does_not_read_is_asked_nothing_more_of() -> None:
    """While answers are not taken no calls are read; when they are, it goes on."""

    async def scenario() -> list[bool]:
        play = Play()
        seen = [play.wire.paused]
        play.stream.pause_writing()
        seen.append(play.wire.paused)
        play.stream.resume_writing()
        seen.append(play.wire.paused)
        play.wire.abort()
        play.stream.pause_writing()  # a closed transport is left alone
        seen.append(play.wire.paused)
        return seen

    assert [False, True, False, False] == asyncio.run(scenario())
