"""HTTP/1 of a worker: hot paths go to the handler at once, all else to the ASGI application.

Requests of one connection are dispatched one after another, so replies leave in the order of the
requests and a read that was pipelined behind a write sees it. A request is dispatched when it was
read whole; how much may wait is bounded, then reading pauses. Whatever fails inside is logged and
answered with 500: no exception leaves a connection half served, and nothing is ever written to a
transport that is closing.

Every connection has one deadline, checked by one ``Sweeper`` for all of them: a timer per request
would cost more than parsing it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from modeldefs.wire.asgi_cycle import AsgiCycle, HeldFlow, asgi_scope
from modeldefs.wire.body_stream import BodyStream, stop_source
from modeldefs.wire.exchange import Exchange, Renderer, Upgraded, json_reply_bytes
from modeldefs.wire.http1 import HotHandler, HttpLimits, HttpReply, JsonReply, StreamReply
from modeldefs.wire.known_heads import KnownHeads
from modeldefs.wire.request_reader import BODY, IDLE, ReadRequest, RequestReader
from modeldefs.wire.sweeper import Sweeper

logger = logging.getLogger(__name__)

# Bytes given to the parser at once: it cannot stop, so this bounds how far the queue overshoots.
_SLICE_BYTES = 16_384


class HotProtocol(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        handler: HotHandler,
        limits: HttpLimits,
        sweeper: Sweeper,
        heads: KnownHeads | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.deadline = math.inf
        self._handler = handler
        self._renderer = Renderer(handler, server_state)
        self._limits = limits
        self._sweeper = sweeper
        self._keep_alive_s = limits.keep_alive_s + sweeper.interval_s
        self._reader = RequestReader(
            limits=limits, body_bytes_max=handler.body_bytes_max, sink=self, heads=heads
        )
        self._active: Exchange | AsgiCycle | BodyStream | None = None
        self._queue: deque[ReadRequest | str] = deque()  # a str is the code of a last refusal
        self._queue_bytes = 0
        self._unfed = b""
        self._held = self._pumping = self._feeding = False
        self._expect_due = self._stopping = self._lingering = False
        self._upgraded: Upgraded | None = None
        self._phase = -1
        self._body_begun = 0.0

    # asyncio.Protocol and uvicorn

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.flow = HeldFlow(transport)
        self._reader.client_host = self.client[0] if self.client else ""
        self._sweeper.add(self)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        """Read, and dispatch what came whole."""
        if self._reader.deaf:
            return
        if self._held:
            self._unfed += data
        else:
            self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is in flight; what waits is dropped undone."""
        self._sweeper.discard(self)
        self._reader.deaf = True
        self._queue.clear()
        self._unfed = b""
        active, self._active = self._active, None
        super().connection_lost(exc)
        if isinstance(active, Exchange | BodyStream):
            active.abandon()

    def resume_writing(self) -> None:
        """Go on with what waited for the client to read."""
        super().resume_writing()
        if isinstance(self._active, BodyStream):
            self._active.resume()
        self._pump()
        self._set_deadline()

    def pause_writing(self) -> None:
        """Dispatch no more to a client that does not read, and give it ``write_s`` to begin."""
        super().pause_writing()
        self._set_deadline()

    def shutdown(self) -> None:
        """Close when what has begun is done."""
        self._stopping = True
        if isinstance(self._active, AsgiCycle) and not self._queue:
            self._active.keep_alive = False
        elif isinstance(self._active, BodyStream):
            self._active.shutdown()
        self._close_if_done()

    def on_response_complete(self) -> None:
        """Go on after the ASGI application has replied."""
        self._active = None
        self._pump()
        self._set_deadline()

    def on_deadline(self) -> None:
        """End what took too long: called by the sweeper when ``deadline`` has passed."""
        transport = self.transport
        if self._lingering or transport.is_closing() or self.flow.write_paused:
            transport.abort()
        elif self._reader.state == IDLE:
            self._close()
        else:
            self._reader.refuse("request-timeout")
            self._set_deadline()

    # Sink of the reader

    def on_request(self, request: ReadRequest) -> None:
        """Dispatch a request, now if nothing is before it."""
        self.server_state.total_requests += 1
        self._expect_due = False
        if self._active is None and not self._queue and not self.flow.write_paused:
            self._dispatch(request)
            return
        self._queue.append(request)
        self._queue_bytes += len(request.body)
        limits = self._limits
        if (
            len(self._queue) >= limits.pipeline_requests_max
            or self._queue_bytes > limits.pipeline_bytes_max
        ):
            self._hold()

    def on_expect(self) -> None:
        """Invite the body, after the replies to what is before it."""
        self._expect_due = True
        if self._active is None and not self._queue:
            self._write_continue()

    def on_refusal(self, code: str) -> None:
        """Refuse and close, after the replies to what is before it."""
        if self._active is None and not self._queue and not self.flow.write_paused:
            self._dispatch(code)
        else:
            self._queue.append(code)

    # Reading

    def _feed(self, data: bytes) -> None:
        reader = self._reader
        self._feeding = True
        try:
            while data and not reader.deaf:
                if self._upgraded is not None:
                    self._upgraded.data_received(data)
                    break
                if self._held:
                    self._unfed = data
                    break
                piece = data[:_SLICE_BYTES]  # the same object when it is not longer
                behind_upgrade = reader.feed(piece)
                end = len(piece) if behind_upgrade is None else behind_upgrade
                data = data[end:]
                if behind_upgrade is not None and self._upgraded is None and self._queue:
                    self._hold()  # what these bytes are is known when its turn has come
        finally:
            self._feeding = False
        if self._active is not None and reader.state == IDLE and not self.flow.write_paused:
            self.deadline = math.inf
        else:
            self._set_deadline()

    def _hold(self) -> None:
        self._held = True
        cast(HeldFlow, self.flow).held = True
        self.flow.pause_reading()

    def _release(self) -> None:
        self._held = False
        data, self._unfed = self._unfed, b""
        self._feed(data)
        if not self._held and not self.transport.is_closing():
            cast(HeldFlow, self.flow).held = False
            self.flow.resume_reading()

    # Dispatching

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._queue and self._active is None and not self.flow.write_paused:
                if self.transport.is_closing():
                    return
                item = self._queue.popleft()
                if isinstance(item, ReadRequest):
                    self._queue_bytes -= len(item.body)
                self._dispatch(item)
        finally:
            self._pumping = False
        if self._active is not None or self._queue:
            return
        if self._held and not self._feeding:
            self.loop.call_soon(self._release_if_held)
        elif self._expect_due and self._reader.state == BODY:
            self._write_continue()
        self._close_if_done()

    def _release_if_held(self) -> None:
        if self._held and not self.transport.is_closing():
            self._release()

    def _dispatch(self, item: ReadRequest | str) -> None:
        if isinstance(item, str):
            self._write_refusal(item)
            return
        exchange = Exchange(item, self._finish)
        self._active = exchange
        try:
            if item.upgrade and self._try_upgrade(item, exchange):
                return
            if self._handler.claims(item.path):
                cancel = self._handler.answer(item, exchange.reply)
                if not exchange.replied:
                    exchange.cancel = cancel
            else:
                self._start_asgi(item)
        except Exception:
            logger.exception("http.handler_failed", extra={"path": item.path})
            if self._active is exchange:
                exchange.reply(self._renderer.refuse("internal", item))

    def _try_upgrade(self, request: ReadRequest, exchange: Exchange) -> bool:
        outcome = self._handler.upgrade(request, self.transport)
        if outcome is None:
            return False
        if isinstance(outcome, HttpReply):
            exchange.reply(outcome)
            return True
        self._active = None
        self._sweeper.discard(self)
        self.connections.discard(self)
        self._upgraded = Upgraded(outcome, self.connections)
        self._upgraded.take_over(self.transport)
        return True

    def _start_asgi(self, request: ReadRequest) -> None:
        cycle = AsgiCycle(
            scope=asgi_scope(self, request),
            request=request,
            refuse=self._renderer.refuse,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            keep_alive=request.keep_alive and not (self._stopping and not self._queue),
            on_response=self.on_response_complete,
        )
        self._active = self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    # Replying

    def _finish(self, exchange: Exchange, reply: HttpReply) -> None:
        if self._active is not exchange:
            return
        self._active = None
        request = exchange.request
        if self.transport.is_closing():
            if type(reply) is StreamReply:
                stop_source(reply.source)
            return
        if (
            type(reply) is JsonReply
            and request.keep_alive
            and request.method != b"HEAD"
            and not (self._stopping or self._queue or self._held or self._expect_due)
        ):
            self.transport.write(json_reply_bytes(reply, self.server_state.default_headers))
            if not self._feeding:
                self._set_deadline()
            return
        keep_alive = request.keep_alive and not (
            self._stopping and not self._queue and self._reader.state == IDLE
        )
        self.transport.write(self._renderer.reply(reply, request, keep_alive=keep_alive))
        if type(reply) is StreamReply:
            if request.method != b"HEAD":
                self._stream(reply, request, keep_alive=keep_alive)
                return
            stop_source(reply.source)
        self._after_reply(keep_alive=keep_alive)

    def _stream(self, reply: StreamReply, request: ReadRequest, *, keep_alive: bool) -> None:
        def on_end(whole: bool) -> None:
            self._active = None
            self._after_reply(keep_alive=keep_alive and whole)
            if not whole:  # what says why may still be on its way to a client that reads slowly
                self.deadline = self.loop.time() + self._limits.write_s

        stream = self._active = BodyStream(
            reply.source,
            path=request.path,
            transport=self.transport,
            flow=self.flow,
            on_end=on_end,
        )
        stream.begin()
        if not self._feeding:
            self._set_deadline()

    def _after_reply(self, *, keep_alive: bool) -> None:
        if not keep_alive:
            self._close()
            return
        if self._queue or self._held or self._expect_due or self._stopping:
            self._pump()
        if not self._feeding:
            self._set_deadline()

    def _write_refusal(self, code: str) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(self._renderer.refusal(code, None, keep_alive=False))
        # The client may still be sending. To close now would reset the connection, and the reset
        # would take the refusal with it: so read on, for a while, and throw it away.
        self._lingering = True
        self._held = cast(HeldFlow, self.flow).held = False
        self.flow.resume_reading()
        self.deadline = self.loop.time() + self._limits.linger_s
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self._close()

    def _write_continue(self) -> None:
        self._expect_due = False
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Ending

    def _close_if_done(self) -> None:
        if not self._stopping or self._active is not None or self._queue or self._unfed:
            return
        if self._reader.state == IDLE and not self._lingering:
            self._close()

    def _close(self) -> None:
        self._reader.deaf = True
        # What is buffered still has the time that a client gets to read.
        is_written = not self.transport.get_write_buffer_size()
        left_s = self._limits.linger_s if is_written else self._limits.write_s
        self.deadline = self.loop.time() + left_s
        if not self.transport.is_closing():
            self.transport.close()

    def _set_deadline(self) -> None:
        if self._lingering or self.transport.is_closing():
            return
        limits, reader = self._limits, self._reader
        waits = self._held or self._active or self._queue or self.flow.write_paused
        if reader.state == IDLE and not waits:
            # By the sweeper's own clock, which is late by an interval at most: asking the loop
            # for the time would be the dearest part of a short request's bookkeeping.
            self.deadline = self._sweeper.now + self._keep_alive_s
            self._phase = -1
            return
        phase = reader.number * 3 + reader.state
        if self.flow.write_paused:
            self.deadline = self.loop.time() + limits.write_s
            phase = -1  # whatever comes next begins anew
        elif self._held or (reader.state == IDLE and (self._active or self._queue)):
            self.deadline = math.inf
        elif reader.state == BODY:
            if phase != self._phase or self.deadline == math.inf:
                self._body_begun = self.loop.time()
            extra = reader.body_bytes_read / limits.body_bytes_per_s_min
            self.deadline = self._body_begun + limits.body_read_s + extra
        elif phase != self._phase or self.deadline == math.inf:
            self.deadline = self.loop.time() + limits.header_read_s
        self._phase = phase
