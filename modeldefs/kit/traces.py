"""What a traced request gets beside its answer: `traceparent` where one came in, and
`Server-Timing` where it was asked for. An ordinary request has no ``Trace`` and pays for none.
"""

from __future__ import annotations

import secrets
from time import perf_counter

from modeldefs.kit.request_headers import RequestHeaders
from modeldefs.wire.http1 import HttpReply, JsonReply
from modeldefs.wire.traceparent import TraceParent, own_span

SHARDS_TOLD_MAX = 64


class Trace:
    """One request whose way is told."""

    __slots__ = ("_begun", "_routed", "_sent", "_shards", "_wants_timing", "parent")

    def __init__(self, headers: RequestHeaders, begun: float) -> None:
        self.parent: TraceParent | None = None
        if headers.traceparent is not None:
            self.parent = own_span(headers.traceparent, secrets.token_bytes(24))
        self._wants_timing = headers.wants_timing
        self._begun = begun
        self._routed = 0.0
        self._sent: dict[str, float] = {}
        self._shards: dict[str, float] = {}

    @property
    def header(self) -> str:
        """The `traceparent` to pass on; "" if there is none."""
        return "" if self.parent is None else self.parent.header()

    def sent(self, shard: str) -> None:
        """A call leaves for a shard."""
        now = perf_counter()
        self._routed = self._routed or now
        self._sent[shard] = now

    def answered(self, shard: str) -> None:
        """A shard has answered."""
        begun = self._sent.pop(shard, None)
        if begun is not None and len(self._shards) < SHARDS_TOLD_MAX:
            took = perf_counter() - begun
            self._shards[shard] = self._shards.get(shard, 0.0) + took

    def tell(self, reply: HttpReply) -> None:
        """Add the headers to the reply."""
        lines: list[tuple[bytes, bytes]] = []
        if self.parent is not None:
            lines.append((b"traceparent", self.header.encode()))
        if self._wants_timing:
            lines.append((b"server-timing", self._timing().encode()))
        if isinstance(reply, JsonReply):
            reply.head += b"".join(b"%b: %b\r\n" % line for line in lines)
        else:
            reply.headers = [*reply.headers, *lines]

    def _timing(self) -> str:
        now = perf_counter()
        spent = [("total", now - self._begun)]
        if self._routed:
            shards = list(self._shards.items())
            slowest = max((took for _, took in shards), default=0.0)
            merge = max(0.0, now - self._routed - slowest)
            spent = [("route", self._routed - self._begun), *shards, ("merge", merge), *spent]
        return ", ".join(f"{name};dur={took * 1_000:.2f}" for name, took in spent)
