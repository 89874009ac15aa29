"""Frames of the stream between a dispatcher and a shard node: bytes in, records out.

A frame is ``u32 payload length | 16-byte MAC | payload`` and a payload is one or more whole
records, all little-endian. The MAC is HMAC-SHA256 of (u64 sequence number, payload) under the
key of this direction of this connection, cut to 16 bytes; the first frame has number 1. So an
altered, replayed, reordered or dropped frame fails its MAC, and nothing of it is ever handed out.

A bad frame is final: after it raised, a reader refuses everything. Golden bytes:
``tests/contract/test_frames.py``. Sans-IO: no socket, no clock.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MAC_BYTES = 16
HEAD_BYTES = 4 + MAC_BYTES
FRAME_PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
NO_BUCKET = 0xFFFF
# Endpoint numbers from here up are the stream's own; the catalog numbers endpoints below.
ENDPOINT_RESERVED = 0xFF00
ENDPOINT_PING = 0xFFFD
ENDPOINT_CANCEL = 0xFFFE
# A request id no request has: an answer with it says something about the connection.
NO_REQUEST = 0
STATUS_DRAIN = 0

_LENGTH = struct.Struct("<I")
_SEQUENCE = struct.Struct("<Q")
REQUEST_HEAD = struct.Struct("<IHHIQHI")
ANSWER_HEAD = struct.Struct("<IHI")
# So many records leave at once, in the middle of a tick: whoever reads them works on them while
# their sender goes on with the next. Fewer would cost more writes than the overlap is worth.
DEPART_RECORDS = 16
RECORD_BODY_BYTES_MAX = FRAME_PAYLOAD_BYTES_MAX - REQUEST_HEAD.size


class BadFrame(Exception):
    """The peer sent bytes that are no frame of this stream: abort the connection.

    ``code`` is what the requests in flight are answered with.
    """

    code = b"shard-reset"


class UntrustedFrame(BadFrame):
    """A frame's MAC is wrong: it was altered, replayed or reordered, or is not from the peer."""

    code = b"shard-untrusted"


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """The two keys of one connection, as one end sees them."""

    sending: bytes = field(repr=False)
    receiving: bytes = field(repr=False)


class RequestRecord(NamedTuple):
    """One call of an endpoint, or a cancel or ping of the stream itself."""

    request_id: int
    endpoint: int
    flags: int
    deadline_ms: int  # what is left of it, so clocks need not agree
    epoch: int
    bucket: int  # NO_BUCKET when the call is not bound to one
    body: bytes


class AnswerRecord(NamedTuple):
    """The answer to the request with this id; status 200, or that of the problem in the body."""

    request_id: int
    status: int
    body: bytes


def pack_request(record: RequestRecord) -> bytes:
    """Return the bytes of one request record."""
    request_id, endpoint, flags, deadline_ms, epoch, bucket, body = record
    head = REQUEST_HEAD.pack(request_id, endpoint, flags, deadline_ms, epoch, bucket, len(body))
    return head + body


def pack_answer(record: AnswerRecord) -> bytes:
    """Return the bytes of one answer record."""
    return ANSWER_HEAD.pack(record.request_id, record.status, len(record.body)) + record.body


def unpack_requests(payload: bytes) -> list[RequestRecord]:
    """Return all request records of a payload.

    Raises:
        BadFrame: A record is cut off. None of the payload may be acted on.
    """
    records = []
    position, end, size = 0, len(payload), REQUEST_HEAD.size
    while position < end:
        if end - position < size:
            raise BadFrame("a request record is shorter than its head")
        request_id, endpoint, flags, deadline_ms, epoch, bucket, length = REQUEST_HEAD.unpack_from(
            payload, position
        )
        position += size
        if length > end - position:
            raise BadFrame("a request record is longer than its frame")
        body = payload[position : position + length]
        # As RequestRecord(...), without the function behind it: one is made for every call.
        fields = (request_id, endpoint, flags, deadline_ms, epoch, bucket, body)
        records.append(tuple.__new__(RequestRecord, fields))
        position += length
    return records


def unpack_answers(payload: bytes) -> list[tuple[int, int, bytes]]:
    """Return all answer records of a payload, as bare tuples: they are made for every answer.

    Raises:
        BadFrame: A record is cut off. None of the payload may be acted on.
    """
    records = []
    position, end, size = 0, len(payload), ANSWER_HEAD.size
    while position < end:
        if end - position < size:
            raise BadFrame("an answer record is shorter than its head")
        request_id, status, length = ANSWER_HEAD.unpack_from(payload, position)
        position += size
        if length > end - position:
            raise BadFrame("an answer record is longer than its frame")
        body = payload[position : position + length]
        records.append((request_id, status, body))
        position += length
    return records


def _mac(key: bytes, sequence: int, payload: bytes) -> bytes:
    return hmac.digest(key, _SEQUENCE.pack(sequence) + payload, "sha256")[:MAC_BYTES]


class FrameWriter:
    """Turns records into frames, numbering them from 1."""

    __slots__ = ("_key", "_payload_max", "_sequence")

    def __init__(self, key: bytes, *, payload_bytes_max: int = FRAME_PAYLOAD_BYTES_MAX) -> None:
        self._key = key
        self._payload_max = payload_bytes_max
        self._sequence = 0

    def frame(self, payload: bytes) -> bytes:
        """Return the next frame, with this payload of whole records."""
        if not 0 < len(payload) <= self._payload_max:
            raise ValueError(f"a payload has 1 to {self._payload_max} bytes, not {len(payload)}")
        self._sequence += 1
        mac = _mac(self._key, self._sequence, payload)
        return b"".join((_LENGTH.pack(len(payload)), mac, payload))

    def frames(self, records: Sequence[bytes]) -> bytes:
        """Return these packed records as one frame, or as few as their size allows."""
        payload = b"".join(records)
        if len(payload) <= self._payload_max:
            return self.frame(payload)
        frames, batch, size = [], list[bytes](), 0
        for record in records:
            if batch and size + len(record) > self._payload_max:
                frames.append(self.frame(b"".join(batch)))
                batch, size = [], 0
            batch.append(record)
            size += len(record)
        frames.append(self.frame(b"".join(batch)))
        return b"".join(frames)


class FrameReader:
    """Turns received bytes into payloads whose MAC was checked; splits may fall anywhere."""

    __slots__ = ("_broken", "_key", "_missing", "_partial", "_payload_max", "_sequence")

    def __init__(self, key: bytes, *, payload_bytes_max: int = FRAME_PAYLOAD_BYTES_MAX) -> None:
        self._key = key
        self._payload_max = payload_bytes_max
        self._sequence = 0
        self._partial = bytearray()
        self._missing = HEAD_BYTES  # length at which looking at `_partial` again can help
        self._broken = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that these bytes complete.

        Payloads that came before a bad frame in the same bytes are dropped with it: their
        requests count as not arrived, which is what an aborted connection means anyway.

        Raises:
            UntrustedFrame: A MAC is wrong.
            BadFrame: A length is zero or over the limit, or an earlier frame was bad.
        """
        if self._broken:
            raise BadFrame("the stream ended with a bad frame")
        try:
            return self._feed(data)
        except BadFrame:
            self._broken = True
            self._partial.clear()
            raise

    def _feed(self, data: bytes) -> list[bytes]:
        if self._partial:
            self._partial += data
            if len(self._partial) < self._missing:
                return []
            data = bytes(self._partial)
            self._partial.clear()
        payloads = []
        position, end = 0, len(data)
        while True:
            self._missing = HEAD_BYTES
            if end - position < HEAD_BYTES:
                break
            (length,) = _LENGTH.unpack_from(data, position)
            if not 0 < length <= self._payload_max:
                raise BadFrame(f"a payload has 1 to {self._payload_max} bytes, not {length}")
            self._missing = HEAD_BYTES + length
            if end - position < self._missing:
                break
            start = position + HEAD_BYTES
            payload = data[start : start + length]
            self._sequence += 1
            expected = _mac(self._key, self._sequence, payload)
            if not hmac.compare_digest(expected, data[position + 4 : start]):
                raise UntrustedFrame(f"frame {self._sequence} has a wrong MAC")
            payloads.append(payload)
            position = start + length
        if position < end:
            self._partial += data[position:]
        return payloads
