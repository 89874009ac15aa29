"""One connection of a dispatcher to a node: its handshake, its frames, the calls it carries.

Every call given to ``send`` gets its ``done`` called once, or is forgotten; see ``stream``.
A link that ended never comes back: the client opens another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from modeldefs.wire.frames import (
    DEPART_RECORDS,
    ENDPOINT_CANCEL,
    ENDPOINT_PING,
    FRAME_PAYLOAD_BYTES_MAX,
    NO_BUCKET,
    NO_REQUEST,
    STATUS_DRAIN,
    BadFrame,
    FrameReader,
    FrameWriter,
    RequestRecord,
    pack_request,
    unpack_answers,
)
from modeldefs.wire.handshake import StreamIdentity, UpgradeRefused, UpgradeReply

logger = logging.getLogger(__name__)

REFUSED = b"refused"
SATURATED = b"saturated"
RESET = BadFrame.code
GATHER_ROUNDS_MAX = 4

Done = Callable[[int, bytes], None]


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Every limit of a stream, with its unit in its name; both ends use the same."""

    in_flight_max: int = 1024
    unsent_bytes_max: int = 16 * 1024 * 1024
    frame_payload_bytes_max: int = FRAME_PAYLOAD_BYTES_MAX
    connect_s: float = 2.0  # from the first packet to the granted upgrade
    backoff_first_s: float = 0.05
    backoff_max_s: float = 2.0
    silence_s: float = 5.0  # then a ping; after as much again without a byte, the end
    drain_s: float = 25.0  # a node that stops waits so long for what is in flight


class Link(asyncio.Protocol):
    """One connection and its calls. ``ready`` and ``released`` tell when it may be used."""

    def __init__(
        self,
        *,
        identity: StreamIdentity,
        nonce: bytes,
        hello: bytes,
        limits: StreamLimits,
        on_released: Callable[[Link, str], None],
    ) -> None:
        self.pending: dict[int, Done] = {}
        self.full = False
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.released: asyncio.Future[None] = self._loop.create_future()
        self._limits = limits
        self._in_flight_max = limits.in_flight_max
        self._hello = hello
        self._on_released = on_released
        self._reply: UpgradeReply | None = UpgradeReply(identity, nonce=nonce)
        self._reader = FrameReader(b"")
        self._writer = FrameWriter(b"")
        self._transport: asyncio.Transport | None = None
        self._unsent: dict[int, bytes] = {}
        self._control: list[bytes] = []
        self._unsent_bytes = self._gathered = self._rounds = 0
        self._flush_due = self._paused = self.ended = self._draining = False
        self._heard = self._pinged = False
        self._silence: asyncio.TimerHandle | None = None

    def send(self, request_id: int, packed: bytes, done: Done) -> None:
        """Let a call, as the bytes of its record, leave at the end of this tick."""
        pending = self.pending
        pending[request_id] = done
        self._unsent[request_id] = packed
        size = self._unsent_bytes = self._unsent_bytes + len(packed)
        self.full = len(pending) >= self._in_flight_max or size >= self._limits.unsent_bytes_max
        if len(self._unsent) >= DEPART_RECORDS:
            self._depart()
        elif not self._flush_due:
            self._flush_due = True
            self._gathered = self._rounds = 0
            self._loop.call_soon(self._gather)

    def bound(self, in_flight_max: int) -> None:
        """Let at most so many calls be in flight from now on."""
        self._in_flight_max = in_flight_max
        self._measure()

    def forget(self, request_id: int) -> bool:
        """Give up a call, at the node too; False if it is not one of this link."""
        if self.pending.pop(request_id, None) is None:
            return False
        unsent = self._unsent.pop(request_id, None)
        if unsent is None:
            self._say(request_id, ENDPOINT_CANCEL)
        else:
            self._unsent_bytes -= len(unsent)
        self._settle()
        return True

    def end(self, code: bytes) -> None:
        """Cut the connection and answer everything in flight; safe to call again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()
        if self.ended:
            return
        self.ended = True
        if self._silence is not None:
            self._silence.cancel()
        if not self.ready.done():
            self.ready.set_exception(UpgradeRefused("" if code == RESET else code.decode()))
            self.ready.exception()  # it may be that nobody waits any more
        self._release(code.decode())
        pending, self.pending = self.pending, {}
        unsent, self._unsent = self._unsent, {}
        for request_id, done in pending.items():
            call_done(done, 0, REFUSED if request_id in unsent else code)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self._transport = cast(asyncio.Transport, transport)
        if self.ended:
            self._transport.abort()
            return
        self._transport.write(self._hello)
        self._silence = self._loop.call_later(self._limits.silence_s, self._on_silence)

    def data_received(self, data: bytes) -> None:
        """Hand out the answers in these bytes, or end over them."""
        self._heard = True
        if self.ended:
            return
        try:
            if self._reply is not None:
                data = self._handshake(data)
            if data:
                self._frames(data)
        except BadFrame as bad:
            logger.warning("stream.bad_frame", extra={"reason": str(bad)})
            self.end(bad.code)
        except UpgradeRefused as refusal:
            self._refused(refusal)

    def eof_received(self) -> None:
        """Make do with what came of the answer to the upgrade."""
        if self._reply is not None and not self.ended:
            try:
                self._reply.feed(b"", ended=True)
            except UpgradeRefused as refusal:
                self._refused(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """Answer what is in flight."""
        self.end(RESET)

    def pause_writing(self) -> None:
        """Hold calls back; from ``unsent_bytes_max`` on the link is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """Let the calls held back leave."""
        self._paused = False
        self._flush_soon()

    def _handshake(self, data: bytes) -> bytes:
        assert self._reply is not None
        granted = self._reply.feed(data)
        if granted is None:
            return b""
        keys, rest = granted
        size = self._limits.frame_payload_bytes_max
        self._reader = FrameReader(keys.receiving, payload_bytes_max=size)
        self._writer = FrameWriter(keys.sending, payload_bytes_max=size)
        self._reply = None
        if not self.ready.done():
            self.ready.set_result(None)
        return rest

    def _refused(self, refusal: UpgradeRefused) -> None:
        if not self.ready.done():
            self.ready.set_exception(refusal)
            self.ready.exception()
        self.end(RESET)

    def _frames(self, data: bytes) -> None:
        answers: list[tuple[int, int, bytes]] = []
        for payload in self._reader.feed(data):
            answers += unpack_answers(payload)
        pending = self.pending
        for request_id, status, body in answers:
            done = pending.pop(request_id, None)
            if done is not None:
                try:
                    done(status, body)
                except Exception:  # as in call_done, without the call
                    logger.exception("stream.done_failed")
            elif request_id == NO_REQUEST and status == STATUS_DRAIN:
                self._draining = True
                self._release("draining")
        self._settle()

    def _settle(self) -> None:
        self._measure()
        if self._draining and not self.pending and self._transport is not None:
            self._flush()
            self._transport.close()

    def _measure(self) -> None:
        self.full = (
            len(self.pending) >= self._in_flight_max
            or self._unsent_bytes >= self._limits.unsent_bytes_max
        )

    def _release(self, reason: str) -> None:
        if not self.released.done():
            self.released.set_result(None)
        self._on_released(self, reason)

    def _say(self, request_id: int, endpoint: int) -> None:
        record = RequestRecord(request_id, endpoint, 0, 0, 0, NO_BUCKET, b"")
        self._control.append(pack_request(record))
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _gather(self) -> None:
        """Let the calls leave, or look once more for others that would leave with them.

        As Nagle's algorithm (RFC 896) does, but without a timer: when nothing is under way calls
        leave at once; else they wait for as many rounds of the loop as keep bringing more.
        """
        waiting = len(self._unsent)
        if (
            waiting > self._gathered
            and self._rounds < GATHER_ROUNDS_MAX
            and len(self.pending) > waiting
        ):
            self._gathered = waiting
            self._rounds += 1
            self._loop.call_soon(self._gather)
        else:
            self._flush()

    def _flush(self) -> None:
        self._flush_due = False
        self._depart()

    def _depart(self) -> None:
        transport = self._transport
        if self._paused or self.ended or transport is None or transport.is_closing():
            return
        records = [*self._unsent.values(), *self._control]
        if records:
            self._unsent.clear()
            self._control.clear()
            self._unsent_bytes = 0
            self._measure()
            transport.write(self._writer.frames(records))

    def _on_silence(self) -> None:
        if self._pinged and not self._heard:
            logger.warning("stream.silent")
            self.end(RESET)
            return
        self._pinged = not self._heard
        self._heard = False
        if self._pinged and self._reply is None:
            self._say(NO_REQUEST, ENDPOINT_PING)
        self._silence = self._loop.call_later(self._limits.silence_s, self._on_silence)


def call_done(done: Done, status: int, body: bytes) -> None:
    """Tell a caller; its exceptions are its own."""
    try:
        done(status, body)
    except Exception:
        logger.exception("stream.done_failed")
