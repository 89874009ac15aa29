"""A streamed body on its way through Django: the same pieces, pulled instead of pushed.

Back-pressure is the server's: it asks for the next piece when the client has read. A body that
broke off ends in an exception, over which the server closes the connection without a last chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from modeldefs.wire.http1 import BodySource


class BrokenOff(Exception):
    """The body is not whole, and its last line says why."""


class PulledBody:
    """What a source writes to, and what Django iterates over. Use from the loop's thread."""

    def __init__(self, source: BodySource) -> None:
        self._source = source
        self._pieces: list[bytes] = []
        self._news = asyncio.Event()
        self._is_over = self._is_whole = False

    @property
    def is_paused(self) -> bool:
        """Is there a piece that nobody has pulled?"""
        return bool(self._pieces)

    def write(self, piece: bytes) -> None:
        """Take a piece."""
        if piece and not self._is_over:
            self._pieces.append(piece)
            self._news.set()

    def end(self) -> None:
        """Take the end of a whole body."""
        self._is_over = self._is_whole = True
        self._news.set()

    def cut(self, last: bytes) -> None:
        """Take the end of one that is not whole."""
        self.write(last)
        self._is_over = True
        self._news.set()

    def close(self) -> None:
        """Stop the source, if it did not end by itself."""
        if not self._is_over:
            self._is_over = True
            self._source.stop()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body.

        Raises:
            BrokenOff: It ends before its end.
        """
        try:
            self._source.begin(self)
            while True:
                pieces, self._pieces = self._pieces, []
                for piece in pieces:
                    yield piece
                if pieces and not self._is_over:
                    self._source.resume()
                elif self._is_over and not self._pieces:
                    break
                elif not self._pieces:
                    self._news.clear()
                    await self._news.wait()
            if not self._is_whole:
                raise BrokenOff
        finally:
            self.close()
