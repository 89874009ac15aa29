"""The node's end of a stream: takes calls from a dispatcher and sends their answers.

Every call gets at most one answer record, in any order; all answers of one loop tick leave as one
frame. A frame is checked whole before any of its calls is started, and after a bad frame nothing
is started any more. When the dispatcher gives up a call or the connection ends, ``on_cancel`` is
called for what is in flight, and answers that come later are dropped.

Use from the event loop's own thread only. The dispatcher's end is ``stream``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import cast

import msgspec

from modeldefs.wire.frames import (
    ANSWER_HEAD,
    DEPART_RECORDS,
    ENDPOINT_CANCEL,
    ENDPOINT_PING,
    ENDPOINT_RESERVED,
    NO_REQUEST,
    STATUS_DRAIN,
    AnswerRecord,
    BadFrame,
    FrameReader,
    FrameWriter,
    RequestRecord,
    pack_answer,
    unpack_requests,
)
from modeldefs.wire.handshake import Session
from modeldefs.wire.link import StreamLimits
from modeldefs.wire.problems import Internal, Overloaded, Problem, ResultTooLarge

logger = logging.getLogger(__name__)

STATUS_PONG = 1
# A dispatcher pings a silent connection, so one that is silent for this many times is gone.
SILENCES_MAX = 6

Answer = Callable[[int, bytes], None]
OnRequest = Callable[[RequestRecord, Answer], None]
OnCancel = Callable[[int], None]


def problem_record_body(problem: Problem) -> bytes:
    """Return the body of an answer record whose status is this problem's."""
    return msgspec.msgpack.encode(problem.to_wire())


class StreamServer(asyncio.Protocol):
    """One accepted stream."""

    def __init__(
        self,
        *,
        session: Session,
        on_request: OnRequest,
        on_cancel: OnCancel,
        limits: StreamLimits | None = None,
    ) -> None:
        self.session = session
        self._limits = limits or StreamLimits()
        size = self._limits.frame_payload_bytes_max
        self._reader = FrameReader(session.keys.receiving, payload_bytes_max=size)
        self._writer = FrameWriter(session.keys.sending, payload_bytes_max=size)
        self._answer_bytes_max = size - ANSWER_HEAD.size
        self._on_request, self._on_cancel = on_request, on_cancel
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._open: set[int] = set()
        self._unsent: list[bytes] = []
        self._flush_due = self._ended = False
        self._heard = True
        self._silences = 0
        self._silence: asyncio.TimerHandle | None = None
        self._drain: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        """How many calls are not answered yet."""
        return len(self._open)

    def shutdown(self) -> None:
        """Ask the dispatcher to send no more; it closes when it has all its answers."""
        if self._ended or self._drain is not None:
            return
        self._put(AnswerRecord(NO_REQUEST, STATUS_DRAIN, b""))
        self._drain = self._loop.call_later(self._limits.drain_s, self._abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the 101 answer was written already."""
        self._transport = cast(asyncio.Transport, transport)
        self._silence = self._loop.call_later(self._limits.silence_s, self._on_silence)

    def data_received(self, data: bytes) -> None:
        """Start the calls in these bytes, or abort the connection over them."""
        self._heard = True
        if self._ended:
            return
        records: list[RequestRecord] = []
        try:
            for payload in self._reader.feed(data):
                records += unpack_requests(payload)
            self._check(records)
        except BadFrame as bad:
            logger.warning(
                "stream.bad_frame",
                extra={"dispatcher": self.session.dispatcher, "reason": str(bad)},
            )
            self._abort()
            return
        for record in records:
            if record.endpoint < ENDPOINT_RESERVED:
                self._start(record)
            elif record.endpoint == ENDPOINT_PING:
                self._put(AnswerRecord(NO_REQUEST, STATUS_PONG, b""))
            else:
                self._cancel(record.request_id)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is in flight."""
        self._end()

    def pause_writing(self) -> None:
        """Take no more calls from a dispatcher that does not take its answers."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Take calls again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _check(self, records: list[RequestRecord]) -> None:
        started = set[int]()
        for record in records:
            if record.endpoint >= ENDPOINT_RESERVED:
                if record.endpoint not in (ENDPOINT_CANCEL, ENDPOINT_PING):
                    raise BadFrame(f"endpoint number {record.endpoint} means nothing")
                continue
            if record.request_id == NO_REQUEST or record.request_id in started:
                raise BadFrame(f"request id {record.request_id} is in use")
            started.add(record.request_id)
        if not started.isdisjoint(self._open):
            raise BadFrame("a request id of a call in flight came again")

    def _start(self, record: RequestRecord) -> None:
        answer = partial(self._answer, record.request_id)
        full = len(self._open) >= self._limits.in_flight_max
        self._open.add(record.request_id)
        if full:
            self._refuse(answer, Overloaded("Too many calls are in flight on this stream."))
            return
        try:
            self._on_request(record, answer)
        except Exception:
            logger.exception("stream.request_failed", extra={"endpoint": record.endpoint})
            self._refuse(answer, Internal())

    def _refuse(self, answer: Answer, problem: Problem) -> None:
        answer(problem.status, problem_record_body(problem))

    def _answer(self, request_id: int, status: int, body: bytes) -> None:
        if request_id not in self._open:
            return
        if len(body) > self._answer_bytes_max:
            problem = ResultTooLarge()
            status, body = problem.status, problem_record_body(problem)
        self._open.discard(request_id)
        self._unsent.append(ANSWER_HEAD.pack(request_id, status, len(body)) + body)
        if len(self._unsent) >= DEPART_RECORDS:
            self._depart()
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _cancel(self, request_id: int) -> None:
        if request_id in self._open:
            self._open.discard(request_id)
            self._tell_cancelled(request_id)

    def _tell_cancelled(self, request_id: int) -> None:
        try:
            self._on_cancel(request_id)
        except Exception:
            logger.exception("stream.cancel_failed")

    def _put(self, record: AnswerRecord) -> None:
        self._unsent.append(pack_answer(record))
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        self._depart()

    def _depart(self) -> None:
        records, self._unsent = self._unsent, []
        transport = self._transport
        if records and transport is not None and not transport.is_closing():
            transport.write(self._writer.frames(records))

    def _abort(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()
        self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        for timer in (self._silence, self._drain):
            if timer is not None:
                timer.cancel()
        self._unsent.clear()
        cancelled, self._open = self._open, set()
        for request_id in cancelled:
            self._tell_cancelled(request_id)

    def _on_silence(self) -> None:
        self._silences = 0 if self._heard else self._silences + 1
        self._heard = False
        if self._silences >= SILENCES_MAX:
            logger.warning("stream.silent", extra={"dispatcher": self.session.dispatcher})
            self._abort()
            return
        self._silence = self._loop.call_later(self._limits.silence_s, self._on_silence)
