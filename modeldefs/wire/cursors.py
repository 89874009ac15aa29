"""Cursors: where a walk through pages stands, signed so that it cannot be bent.

A cursor holds one *global* position in the endpoint's order, and those of the bucket ranges that
stand elsewhere, because their shard was missing when the others went on. It belongs to one
endpoint, one set of parameters and one caller, and lives 24 hours, rounded up to the hour. It is
signed, not secret: it shows the order columns of the last row, which the caller has just read.

Pure: no clock; the time is passed in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from modeldefs.wire.problems import CursorExpired, CursorInvalid

FORMAT = 1
LIFE_S = 24 * 3600
_HOUR_S = 3600
_MAC_BYTES = 16


class Lagging(NamedTuple):
    """Bucket ranges, first to last inclusive, and where the walk stands in them."""

    position: list[Any] | None  # None: nothing of them was given yet
    ranges: tuple[tuple[int, int], ...]


class Stand(NamedTuple):
    """Where a walk stands: in all buckets, and in those that stand elsewhere."""

    position: list[Any] | None
    lagging: tuple[Lagging, ...] = ()


START = Stand(None)


class _Body(msgspec.Struct, array_like=True):
    format: int
    endpoint: str
    binding: bytes  # hash of order, parameters and principal
    expires: int
    position: list[Any] | None
    # Each a position and bucket numbers, first and last of each range in turn.
    lagging: list[tuple[list[Any] | None, list[int]]] = []


_decoder = msgspec.msgpack.Decoder(_Body)


def binding_of(
    *, endpoint: str, order: Sequence[str], parameters: dict[str, Any], principal: str
) -> bytes:
    """Return the hash that ties a cursor to its walk."""
    told = [endpoint, list(order), sorted(parameters.items()), principal]
    return hashlib.sha256(msgspec.msgpack.encode(told)).digest()[:16]


def sign_cursor(
    key: bytes,
    *,
    endpoint: str,
    binding: bytes,
    position: Sequence[Any] | None,
    now: float,
    lagging: Sequence[Lagging] = (),
) -> str:
    """Return the cursor behind this position, as base64url text."""
    expires = (int(now) + LIFE_S + _HOUR_S - 1) // _HOUR_S * _HOUR_S
    told = _Body(FORMAT, endpoint, binding, expires, None if position is None else list(position))
    if lagging:
        told.lagging = [
            (each.position, [bucket for pair in each.ranges for bucket in pair])
            for each in lagging
        ]
    body = msgspec.msgpack.encode(told)
    mac = hmac.digest(key, body, "sha256")[:_MAC_BYTES]
    return base64.urlsafe_b64encode(mac + body).rstrip(b"=").decode()


def read_cursor(key: bytes, text: str, *, endpoint: str, binding: bytes, now: float) -> Stand:
    """Return where a walk stands by its cursor.

    Raises:
        CursorInvalid: It was altered, or belongs to another walk.
        CursorExpired: Its day is over.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise CursorInvalid from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
        raise CursorInvalid  # another spelling of the same bytes is an altered cursor
    mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(hmac.digest(key, body, "sha256")[:_MAC_BYTES], mac):
        raise CursorInvalid
    try:
        told = _decoder.decode(body)
    except msgspec.DecodeError:
        raise CursorInvalid from None
    if told.format != FORMAT or told.endpoint != endpoint:
        raise CursorInvalid
    if not hmac.compare_digest(told.binding, binding):
        raise CursorInvalid
    if now >= told.expires:
        raise CursorExpired
    return Stand(
        told.position,
        tuple(
            Lagging(position, tuple(zip(buckets[::2], buckets[1::2], strict=True)))
            for position, buckets in told.lagging
        ),
    )
