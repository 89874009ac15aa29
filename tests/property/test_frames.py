"""Whatever arrives on a stream: whole honest frames come through, nothing else ever does."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldefs.wire.frames import (
    HEAD_BYTES,
    AnswerRecord,
    BadFrame,
    FrameReader,
    FrameWriter,
    RequestRecord,
    UntrustedFrame,
    pack_answer,
    pack_request,
    unpack_answers,
    unpack_requests,
)

KEY = b"k" * 32
BODIES = st.binary(max_size=60)
REQUESTS = st.builds(
    RequestRecord,
    request_id=st.integers(1, 2**32 - 1),
    endpoint=st.integers(0, 0xFEFF),
    flags=st.integers(0, 2**16 - 1),
    deadline_ms=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 2**64 - 1),
    bucket=st.integers(0, 2**16 - 1),
    body=BODIES,
)
ANSWERS = st.builds(
    AnswerRecord,
    request_id=st.integers(0, 2**32 - 1),
    status=st.integers(0, 2**16 - 1),
    body=BODIES,
)
TICKS = st.lists(st.lists(REQUESTS, min_size=1, max_size=5), min_size=1, max_size=5)


def _read(data: bytes, cuts: list[int]) -> list[RequestRecord]:
    reader, records = FrameReader(KEY, payload_bytes_max=4096), list[RequestRecord]()
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        for payload in reader.feed(data[start:end]):
            records += unpack_requests(payload)
    return records


@given(ticks=TICKS, cuts=st.lists(st.integers(0, 10_000), max_size=20), size=st.integers(90, 500))
def test_records_come_through_whole_and_in_order(
    ticks: list[list[RequestRecord]], cuts: list[int], size: int
) -> None:
    """However records are spread over frames and frames over reads, the same records come out."""
    writer = FrameWriter(KEY, payload_bytes_max=size)
    data = b"".join(writer.frames([pack_request(one) for one in tick]) for tick in ticks)

    assert [one for tick in ticks for one in tick] == _read(data, cuts)


@given(answers=st.lists(ANSWERS, min_size=1, max_size=9))
def test_answers_come_through(answers: list[AnswerRecord]) -> None:
    """Packing and unpacking answers are inverse."""
    assert answers == unpack_answers(b"".join(pack_answer(one) for one in answers))


@given(ticks=TICKS, place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_lets_nothing_through_from_there_on(
    ticks: list[list[RequestRecord]], place: int, bit: int
) -> None:
    """One altered bit anywhere: no record of that frame or of a later one is handed out."""
    writer = FrameWriter(KEY)
    frames = [writer.frames([pack_request(one) for one in tick]) for tick in ticks]
    data = bytearray(b"".join(frames))
    place %= len(data)
    data[place] ^= 1 << bit
    ends = [sum(map(len, frames[: n + 1])) for n in range(len(frames))]
    sound = sum(end <= place for end in ends)
    reader, records = FrameReader(KEY, payload_bytes_max=100_000), list[RequestRecord]()
    for at in range(len(data)):
        try:
            payloads = reader.feed(bytes(data[at : at + 1]))
        except BadFrame:
            break
        for payload in payloads:
            records += unpack_requests(payload)

    assert records == [one for tick in ticks[:sound] for one in tick]


@given(order=st.permutations(range(4)))
def test_frames_only_come_in_their_own_order(order: list[int]) -> None:
    """Reordered frames fail at the first one out of place."""
    writer, reader = FrameWriter(KEY), FrameReader(KEY)
    frames = [writer.frame(b"payload") for _ in range(4)]
    accepted = 0
    try:
        for position in order:
            accepted += len(reader.feed(frames[position]))
    except UntrustedFrame:
        pass
    in_place = [position == n for n, position in enumerate(order)]

    assert accepted == (4 if all(in_place) else in_place.index(False))


def test_a_replayed_frame_is_untrusted_and_the_end() -> None:
    """The same frame twice is refused, and so is everything after it, however right."""
    writer, reader = FrameWriter(KEY), FrameReader(KEY)
    frame = writer.frame(b"payload")

    assert reader.feed(frame) == [b"payload"]
    with pytest.raises(UntrustedFrame):
        reader.feed(frame)
    with pytest.raises(BadFrame):
        reader.feed(writer.frame(b"payload"))


@given(garbage=st.binary(min_size=HEAD_BYTES + 1, max_size=200))
def test_garbage_is_never_a_payload(garbage: bytes) -> None:
    """Random bytes are refused, or waited on to become a frame; they never are one."""
    reader = FrameReader(KEY, payload_bytes_max=10_000)
    try:
        assert reader.feed(garbage) == []
    except BadFrame:
        assert garbage


@pytest.mark.parametrize("length", [0, 4097, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_at_once(length: int) -> None:
    """No memory is set aside for a length over the limit, and an empty frame is none."""
    reader = FrameReader(KEY, payload_bytes_max=4096)

    with pytest.raises(BadFrame):
        reader.feed(length.to_bytes(4, "little") + bytes(16))


@given(records=st.lists(REQUESTS, min_size=1, max_size=4), cut=st.integers(1, 10_000))
def test_a_cut_off_record_refuses_its_whole_payload(
    records: list[RequestRecord], cut: int
) -> None:
    """A payload that does not end with a record is refused, or was cut between two."""
    payload = b"".join(pack_request(one) for one in records)
    shorter = payload[: -(cut % len(payload)) or None]
    try:
        unpacked = unpack_requests(shorter)
    except BadFrame:
        return

    assert unpacked == records[: len(unpacked)]
    assert shorter == b"".join(pack_request(one) for one in unpacked)
