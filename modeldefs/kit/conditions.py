"""Conditional requests (RFC 9110, section 13): ``If-Match`` and ``If-None-Match``.

Of a read the condition is held against the answer's own ETag; of a write against the version that
the row of its primary key has on the shard, in the write's own transaction. A condition that
cannot be kept is refused: who sent it did not want the request done without it.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.request_headers import LIST_BYTES_MAX, RequestHeaders
from modeldefs.kit.row_versions import row_check
from modeldefs.wire import calls
from modeldefs.wire.problems import InputError, InvalidRequest, PreconditionRequired, Stale

IF_MATCH = "If-Match"
IF_NONE_MATCH = "If-None-Match"
TAGS_MAX = 50
# Methods whose answer may be 304.
_REVALIDATING = frozenset({b"GET", b"HEAD", b"QUERY"})
_TAG = re.compile(rb'[ \t]*(?:(W/)?"([!\x23-\x7e\x80-\xff]*)"[ \t]*)?(?:,|\Z)')


@dataclass(frozen=True, slots=True)
class Tags:
    """The entity tags of one header, without their quotes; or any."""

    is_any: bool = False
    strong: frozenset[bytes] = frozenset()
    weak: frozenset[bytes] = frozenset()

    def name(self, etag: bytes) -> bool:
        """Is the ETag one of them, if weak and strong ones count as equal?"""
        opaque = etag.removeprefix(b"W/")[1:-1]
        return self.is_any or opaque in self.strong or opaque in self.weak

    def name_strongly(self, etag: bytes) -> bool:
        """Is the ETag one of them, both being strong?"""
        return self.is_any or (etag[:2] != b"W/" and etag[1:-1] in self.strong)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a request says must hold, or it is not done."""

    match: Tags | None = None
    none_match: Tags | None = None

    def of_row(self) -> list[str]:
        """Return the condition of a write as its call carries it."""
        if self.match is None:
            return [calls.ABSENT]
        if self.match.is_any:
            return [calls.ANY_VERSION]
        return sorted(tag.decode("latin-1") for tag in self.match.strong)

    def is_unchanged(self, etag: bytes) -> bool:
        """Say of an answer with this ETag whether its reader has it already.

        Raises:
            Stale: It is not the one that the reader demands.
        """
        if self.match is not None and not self.match.name_strongly(etag):
            raise Stale("the answer is another one now; its ETag is not among those of If-Match")
        return self.none_match is not None and self.none_match.name(etag)


def read_tags(name: str, value: bytes | None) -> Tags | None:
    """Return the entity tags of a header; None without one.

    Raises:
        InvalidRequest: It is no list of entity tags, or too long.
    """
    if value is None:
        return None
    if len(value) > LIST_BYTES_MAX:
        raise _refused(name, "too-long", f"has more than {LIST_BYTES_MAX} bytes")
    if value.strip(b" \t") == b"*":
        return Tags(is_any=True)
    found: tuple[set[bytes], set[bytes]] = (set(), set())
    at = 0
    while at < len(value):
        tag = _TAG.match(value, at)
        if tag is None:
            raise _refused(name, "wrong-type", 'is no list of ETags, "..." with their quotes')
        if tag[2] is not None:
            found[tag[1] is not None].add(tag[2])
        at = tag.end()
    strong, weak = found
    if not 1 <= len(strong) + len(weak) <= TAGS_MAX:
        raise _refused(name, "out-of-range", f"has not 1 to {TAGS_MAX} ETags")
    return Tags(strong=frozenset(strong), weak=frozenset(weak))


def conditions_of(
    headers: RequestHeaders, endpoint: Endpoint[Any, Any], method: bytes, *, is_export: bool
) -> Conditions | None:
    """Return the conditions of a request; None if it has none.

    Raises:
        InvalidRequest: One is malformed, or cannot be kept here.
        PreconditionRequired: The endpoint is only called with one.
    """
    match = read_tags(IF_MATCH, headers.if_match)
    none_match = read_tags(IF_NONE_MATCH, headers.if_none_match)
    if endpoint.kind == "mutation":
        _check_write(endpoint, match, none_match)
    elif match is not None and (endpoint.shape != "single" or is_export):
        raise _refused(IF_MATCH, _UNKEPT, "is kept by reads of one row only, and by writes")
    elif none_match is not None and method not in _REVALIDATING:
        raise _refused(IF_NONE_MATCH, _UNKEPT, "is kept by GET, HEAD and QUERY only")
    if match is None and none_match is None:
        return None
    return Conditions(match, none_match)


_UNKEPT = "unsupported-condition"


def _check_write(
    endpoint: Endpoint[Any, Any], match: Tags | None, none_match: Tags | None
) -> None:
    if endpoint.options.if_match == "required" and match is None:
        raise PreconditionRequired
    name = IF_NONE_MATCH if match is None else IF_MATCH
    if match is None and none_match is None:
        return
    if row_check(endpoint) is None:
        key = endpoint.model._meta.pk.attname
        raise _refused(name, _UNKEPT, f"needs one row, and no parameter is its key {key!r}")
    if match is not None and none_match is not None:
        raise _refused(IF_NONE_MATCH, _UNKEPT, "is not kept beside If-Match")
    if none_match is not None and not none_match.is_any:
        raise _refused(IF_NONE_MATCH, _UNKEPT, "of a write is `*` only: create, do not replace")


def _refused(name: str, code: str, detail: str) -> InvalidRequest:
    error = InputError(code, detail, parameter=name)
    return InvalidRequest(f"{name} {detail}", errors=[error])
