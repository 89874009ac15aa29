"""A reply whose body is written as it comes, chunk by chunk, no faster than the client reads.

The end proves that all is there: only a body that was ended gets the last chunk of RFC 9112, 7.1.
One that broke off is cut: the connection is closed without it, so no client and no proxy can take
a part for the whole. A client that has gone stops the source.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl

from modeldefs.wire.http1 import BodySource

logger = logging.getLogger(__name__)

_LAST_CHUNK = b"0\r\n\r\n"


class BodyStream:
    """One body under way on one connection; it is what its source writes to."""

    __slots__ = ("_flow", "_is_over", "_on_end", "_source", "_transport", "path")

    def __init__(
        self,
        source: BodySource,
        *,
        path: bytes,
        transport: asyncio.Transport,
        flow: FlowControl,
        on_end: Callable[[bool], None],
    ) -> None:
        """``on_end`` is called once, with whether the body is whole."""
        self.path = path
        self._source = source
        self._transport = transport
        self._flow = flow
        self._on_end = on_end
        self._is_over = False

    def begin(self) -> None:
        """Let the source write; the head was written."""
        self._tell(lambda: self._source.begin(self))

    # What the source may do

    @property
    def is_paused(self) -> bool:
        """Does the client not read as fast as was written? Then ``resume`` will be called."""
        return self._flow.write_paused

    def write(self, piece: bytes) -> None:
        """Write a piece of the body; an empty one would end it."""
        if piece and not self._is_over:
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def end(self) -> None:
        """Say that this was all."""
        if not self._is_over:
            self._is_over = True
            self._transport.write(_LAST_CHUNK)
            self._on_end(True)

    def cut(self, last: bytes) -> None:
        """Break off behind these last bytes, so that the client sees that it is not all."""
        self.write(last)
        if not self._is_over:
            self._is_over = True
            self._on_end(False)

    # What the connection tells it

    def resume(self) -> None:
        """The client reads again."""
        self._tell(self._source.resume)

    def shutdown(self) -> None:
        """The worker wants to end: let the source end in its own way, soon."""
        self._tell(self._source.shutdown)

    def abandon(self) -> None:
        """The client has gone."""
        self._is_over = True
        stop_source(self._source)

    def _tell(self, call: Callable[[], None]) -> None:
        if self._is_over:
            return
        try:
            call()
        except Exception:
            logger.exception("http.body_failed", extra={"path": self.path})
            stop_source(self._source)
            self.cut(b"")


def stop_source(source: BodySource) -> None:
    """Stop a source whose body nobody will read."""
    try:
        source.stop()
    except Exception:
        logger.exception("http.stop_failed")
