"""The replies to reads whose answers may be used again: with tag and age, 304, or not to be kept.

What is said of one row by its version, 304 too, is said by ``replies``.
"""

from __future__ import annotations

from collections.abc import Callable

from modeldefs.kit.asks import Answer, Ask, Outcome, Unchanged
from modeldefs.kit.replies import NO_STORE, without_content
from modeldefs.kit.reuse import NOT_KEPT, Reuse
from modeldefs.wire.http1 import HttpReply, HttpRequest, JsonReply

Make = Callable[[Ask, Answer, HttpRequest], HttpReply]


def reused_reply(
    make: Make, reuse: Reuse, ask: Ask, outcome: Outcome, request: HttpRequest
) -> HttpReply:
    """Return the reply that ``make`` makes, with its tag and age; 304 if the client has it."""
    if isinstance(outcome, Unchanged):
        return _not_modified(reuse, ask)
    answered = make(ask, outcome, request)
    if type(answered) is not JsonReply:
        if answered.status == 304:
            answered.headers += _lines(reuse)
        return answered
    if reuse is NOT_KEPT:
        return JsonReply(answered.body, answered.head.replace(ask.served.cache_line, NO_STORE, 1))
    if reuse.etag and reuse.is_had:
        return _not_modified(reuse, ask)
    lines = b"".join(b"%b: %b\r\n" % line for line in _lines(reuse))
    return JsonReply(answered.body, answered.head + lines)


def _not_modified(reuse: Reuse, ask: Ask) -> HttpReply:
    """Return 304, with the headers that the whole answer would have had (RFC 9110, 15.4.5)."""
    reply = without_content(304, b"%b%b\r\n" % (ask.served.head, ask.request_id.encode()))
    if ask.prefers.applied:
        reply.headers.append((b"preference-applied", ask.prefers.applied))
    reply.headers += _lines(reuse)
    return reply


def _lines(reuse: Reuse) -> list[tuple[bytes, bytes]]:
    lines = []
    if etag := reuse.etag:
        lines.append((b"etag", etag))
    if reuse.age_s is not None:
        lines.append((b"age", b"%d" % reuse.age_s))
    if reuse.note:
        lines.append((b"cache-status", reuse.note))
    return lines
