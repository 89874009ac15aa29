"""The dispatcher's end of a stream: many calls in flight on one connection to a shard node.

Every ``send`` leads to exactly one ``done``: the node's answer, or status 0 and a code that says
what became of the call. ``refused`` and ``saturated``: it never left, so it surely did nothing.
``shard-reset`` and ``shard-untrusted``: it left and the connection ended, so a write may have
happened. ``forget`` is the one exception: who forgets hears nothing more.

``done`` is never called from within ``send``. All calls of one loop tick leave as one frame.
Use from the event loop's own thread only. The node's end is ``stream_server``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Callable

from modeldefs.wire.frames import (
    ENDPOINT_RESERVED,
    NO_REQUEST,
    RECORD_BODY_BYTES_MAX,
    REQUEST_HEAD,
    RequestRecord,
    UntrustedFrame,
)
from modeldefs.wire.handshake import (
    Session,
    StreamIdentity,
    UpgradeRefused,
    accept_upgrade,
    upgrade_request,
)
from modeldefs.wire.link import REFUSED, RESET, SATURATED, Done, Link, StreamLimits, call_done
from modeldefs.wire.signing import NONCE_BYTES
from modeldefs.wire.stream_server import StreamServer

__all__ = [
    "RequestRecord",
    "Session",
    "StreamClient",
    "StreamIdentity",
    "StreamLimits",
    "StreamServer",
    "accept_upgrade",
    "backoff_s",
]

logger = logging.getLogger(__name__)

OnState = Callable[[bool, str], None]

# What a client counts of its stream, beside its calls, which are their ids.
STREAM_COLUMNS = (
    "calls", "opened", "closed", "untrusted", "saturated", "in_flight_now", "connected_now",
)  # fmt: skip
CALLS, OPENED, CLOSED, UNTRUSTED, SATURATIONS, IN_FLIGHT_NOW, CONNECTED_NOW = range(7)


def backoff_s(attempt: int, *, chance: float, limits: StreamLimits) -> float:
    """Return how long to wait before attempt number ``attempt`` (0 = the first repeat).

    Doubles up to ``backoff_max_s`` and takes between half and all of it, by ``chance`` in [0, 1),
    so that the workers that lost a node together do not return together.
    """
    full = min(limits.backoff_max_s, limits.backoff_first_s * 2.0 ** min(attempt, 30))
    return full * (0.5 + chance / 2)


class StreamClient:
    """One stream from this process to one shard node, opened again whenever it ends.

    Args:
        unix_path: Asked before each attempt for the node's unix socket; None means TCP.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        identity: StreamIdentity,
        on_state: OnState,
        unix_path: Callable[[], str | None] = lambda: None,
        limits: StreamLimits | None = None,
        row: list[int] | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        nonce: Callable[[], bytes] = lambda: secrets.token_bytes(NONCE_BYTES),
    ) -> None:
        self.identity = identity  # may be replaced; the next connection uses it
        self.limits = limits or StreamLimits()
        self.last_refusal = ""
        self.row = [0] * len(STREAM_COLUMNS) if row is None else row
        self._calls_counted = NO_REQUEST
        self.in_flight_max = self.limits.in_flight_max
        self._host, self._port, self._unix_path = host, port, unix_path
        self._on_state = on_state
        self._clock, self._chance, self._nonce = clock, chance, nonce
        self._link: Link | None = None
        self._draining: set[Link] = set()
        self._task: asyncio.Task[None] | None = None
        self._request_id = NO_REQUEST
        self._reported: tuple[bool, str] | None = None
        self._distrusts_socket = False

    @property
    def connected(self) -> bool:
        """Whether a call would leave now."""
        return self._link is not None

    @property
    def in_flight(self) -> int:
        """How many calls await their answer on the connection in use."""
        return len(self._link.pending) if self._link is not None else 0

    def bound(self, in_flight_max: int) -> None:
        """Let at most so many calls be in flight, never more than the stream's own limit."""
        self.in_flight_max = min(in_flight_max, self.limits.in_flight_max)
        if self._link is not None:
            self._link.bound(self.in_flight_max)

    def fill(self) -> None:
        """Bring what is counted up to date."""
        row = self.row
        row[CALLS] += (self._request_id - self._calls_counted) & 0xFFFFFFFF
        self._calls_counted = self._request_id
        row[IN_FLIGHT_NOW] = self.in_flight
        row[CONNECTED_NOW] = int(self.connected)

    async def start(self) -> None:
        """Start connecting, for as long as it takes; return when the first attempt has ended."""
        if self._task is not None:
            raise RuntimeError("this stream was started before")
        attempted = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep_connected(attempted))
        await attempted.wait()

    async def close(self) -> None:
        """End the stream for good; calls in flight are answered with ``shard-reset``."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for link in (self._link, *tuple(self._draining)):
            if link is not None:
                link.end(RESET)

    def send(
        self,
        *,
        endpoint: int,
        flags: int,
        deadline_ms: int,
        epoch: int,
        bucket: int,
        body: bytes,
        done: Done,
    ) -> int:
        """Send a call and return its id, for ``forget``.

        Raises:
            ValueError: The body is larger than a frame, or the endpoint number is reserved.
        """
        if len(body) > RECORD_BODY_BYTES_MAX or endpoint >= ENDPOINT_RESERVED:
            raise ValueError(f"endpoint {endpoint} with {len(body)} bytes is no call")
        link = self._link
        if link is None or link.full:
            loop = asyncio.get_running_loop()
            loop.call_soon(call_done, done, 0, REFUSED if link is None else SATURATED)
            self.row[SATURATIONS] += link is not None
            return NO_REQUEST
        request_id = self._request_id = (self._request_id + 1) & 0xFFFFFFFF
        if request_id == NO_REQUEST or request_id in link.pending:
            request_id = self._next_id(link)
        head = REQUEST_HEAD.pack(
            request_id, endpoint, flags, deadline_ms, epoch, bucket, len(body)
        )
        link.send(request_id, head + body, done)
        return request_id

    def forget(self, request_id: int) -> None:
        """Give up a call: its ``done`` is not called any more, and the node is told to stop."""
        for link in (self._link, *self._draining):
            if link is not None and link.forget(request_id):
                return

    def _next_id(self, link: Link) -> int:
        request_id = self._request_id
        while True:
            request_id = (request_id + 1) & 0xFFFFFFFF
            if request_id != NO_REQUEST and request_id not in link.pending:
                self._request_id = request_id
                return request_id

    async def _keep_connected(self, attempted: asyncio.Event) -> None:
        attempt = 0
        while True:
            link = self._new_link()
            try:
                await self._connect(link)
            except (OSError, TimeoutError, UpgradeRefused) as refusal:
                link.end(RESET)
                self.last_refusal = refusal.code if isinstance(refusal, UpgradeRefused) else ""
                self._report(False, self.last_refusal or REFUSED.decode())
            except BaseException:
                link.end(RESET)
                raise
            else:
                attempt = 0
                self.last_refusal = ""
                if not link.released.done():  # it may have ended before this task went on
                    self._link = link
                    link.bound(self.in_flight_max)
                    self._report(True, "")
                attempted.set()
                await link.released
            attempted.set()
            delay = backoff_s(attempt, chance=self._chance(), limits=self.limits)
            await asyncio.sleep(delay)
            attempt += 1

    def _new_link(self) -> Link:
        nonce = self._nonce()
        host = f"{self._host}:{self._port}" if self._host else "localhost"
        return Link(
            identity=self.identity,
            nonce=nonce,
            hello=upgrade_request(self.identity, host=host, nonce=nonce, now=self._clock()),
            limits=self.limits,
            on_released=self._released,
        )

    async def _connect(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self.limits.connect_s):
            if not await self._connect_locally(link):
                await loop.create_connection(lambda: link, self._host, self._port)
            await link.ready
            self._distrusts_socket = False

    async def _connect_locally(self, link: Link) -> bool:
        """Connect over the node's socket; return False where TCP is to be tried."""
        path = self._unix_path()
        # A socket that connects and is no stream of this node, somebody else's perhaps: the next
        # attempt goes over TCP, and the one after that may find it mended.
        distrusted = self._distrusts_socket and bool(self._host)
        self._distrusts_socket = False
        if path is None or distrusted:
            return False
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: link, path)
        except OSError:
            if not self._host:
                raise
            return False
        self._distrusts_socket = True
        return True

    def _released(self, link: Link, reason: str) -> None:
        if link.ended:
            self._draining.discard(link)
        else:
            self._draining.add(link)
        if self._link is link:
            self._link = None
            self._report(False, reason)

    def _report(self, connected: bool, reason: str) -> None:
        if self._reported == (connected, reason):
            return
        self._reported = (connected, reason)
        self.row[OPENED if connected else CLOSED] += 1
        self.row[UNTRUSTED] += reason == UntrustedFrame.code.decode()
        try:
            self._on_state(connected, reason)
        except Exception:
            logger.exception("stream.on_state_failed")
