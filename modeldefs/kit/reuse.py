"""Answers that may be used again: the tags of pages and totals, their age, who may keep them.

The tag of a page or of totals is weak and reads ``base.tag.tag``: what was asked, and for each
shard that was asked the tag of what it saw (``snapshots``). The shards compare their own tags, and
only if all of them agree is an answer unchanged. The base is a hash of all that an answer depends
on beside the rows: definitions, endpoint, version, parameters, caller, and the hour, as its
cursors expire by it. A single row has its version as its tag (``row_versions``) instead.

Only reads that may need it have a ``Reuse``; all others owe it one look at None.
Pure: the time is passed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from modeldefs.kit.conditions import Tags
from modeldefs.kit.snapshots import TAG_LENGTH

if TYPE_CHECKING:
    from modeldefs.kit.asks import Ask

SHARDS_MAX = 64  # of which a tag tells; an ETag has 17 bytes for each
_HOUR_S = 3_600
_PLAIN = frozenset({b"", b"handling=strict", b"handling=lenient"})

Known = tuple[str, ...]


class Reuse:
    """What one read's answer is compared with, and what is told of its use."""

    __slots__ = ("_wanted", "age_s", "base", "identity", "kept", "note", "tags")

    def __init__(self, identity: str = "", base: str = "", wanted: Tags | None = None) -> None:
        self.identity = identity  # of what is asked, by whom; "": nothing of it may be kept
        self.base = base  # "": the answer has no tag of its shards
        self.tags: Sequence[str] = ()  # of the answer, one for each shard that was asked
        self.kept: Known = ()  # the tags of an answer that is at hand
        self.age_s: int | None = None  # of an answer that was at hand
        self.note = b""  # the value of Cache-Status
        self._wanted = wanted

    def known(self, count: int) -> Known:
        """Return the tag that each of ``count`` shards shall compare its own with, "" for none."""
        if len(self.kept) == count:
            return self.kept
        wanted = self._wanted
        for text in (*wanted.weak, *wanted.strong) if wanted is not None else ():
            base, *parts = text.decode("latin-1").split(".")
            if base == self.base and len(parts) == count and all(map(_is_tag, parts)):
                return tuple(parts)
        return ("",) * count

    @property
    def etag(self) -> bytes:
        """The answer's tag as its header tells it, empty where it has none."""
        if not self.base or not 0 < len(self.tags) <= SHARDS_MAX or not all(self.tags):
            return b""
        return b'W/"%b"' % ".".join([self.base, *self.tags]).encode()

    @property
    def is_had(self) -> bool:
        """Has the client an answer with this tag?"""
        return self._wanted is not None and self._wanted.name(self.etag)


NOT_KEPT = Reuse()
"""Of a read by POST, which no cache may keep: whoever needs that sends a QUERY."""


def reuse_of(ask: Ask, method: bytes, *, bundle: str, now: float) -> Reuse | None:
    """Return what is to be known about using the answer of a read again; None: nothing is.

    Args:
        ask: The read.
        method: Its HTTP method.
        bundle: The id of the definitions.
        now: The time, in seconds.
    """
    assert ask.plan is not None
    if ask.is_export:
        return None
    if method == b"POST":
        return NOT_KEPT
    cache = ask.served.endpoint.options.cache
    wanted = None if ask.conditions is None else ask.conditions.none_match
    # What lacks shards, or lacked them on the way to here, is the answer to nothing else; nor is
    # what was made to a preference.
    is_plain = ask.prefers.applied in _PLAIN and not ask.lagging
    if not is_plain or (cache is None and wanted is None):
        return None
    about = (
        bundle,
        ask.served.name,
        ask.served.version,
        ask.principal.identity,
        ask.mask,
        ask.ordered_values(),
        ask.limit,
        ask.after,
    )
    identity = hashlib.sha256(msgspec.msgpack.encode(about)).hexdigest()
    base = ""
    if ask.plan.is_steady and not ask.served.is_single and method in (b"GET", b"HEAD"):
        hour = int(now) // _HOUR_S
        base = hashlib.sha256(f"{identity} {hour}".encode()).hexdigest()[:16]
    return Reuse(identity, base, wanted)


def _is_tag(text: str) -> bool:
    return len(text) == TAG_LENGTH
