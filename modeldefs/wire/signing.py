"""Signatures of control requests between a dispatcher and a shard node, and of their answers.

Both ends hold one pair key (``enrolment``). A request's MAC covers method, target, body, shard,
time and a nonce; an answer's covers its status, its body and the request's MAC, so neither can be
altered, replayed within the window, sent to another shard or given to another question.
``Created`` may differ by 30 seconds; nonces are remembered for 60, so a replay is always caught by
one of the two. Verify before parsing the body.

Pure: time and nonces are passed in.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modeldefs.wire.problems import ClockSkew, ShardUntrusted, Unauthorized

SKEW_S_MAX = 30
NONCE_TTL_S = 60.0
NONCES_MAX = 100_000
NONCE_BYTES = 16

HEADER_KEY_ID = "Shardpoint-Key-Id"
HEADER_CREATED = "Shardpoint-Created"
HEADER_NONCE = "Shardpoint-Nonce"
HEADER_MAC = "Shardpoint-Mac"

_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_CREATED = re.compile(r"[0-9]{1,12}", re.ASCII)


@dataclass(slots=True)
class NonceCache:
    """The nonces of the last ``ttl_s`` seconds. When full of live ones it refuses all others."""

    ttl_s: float = NONCE_TTL_S
    capacity: int = NONCES_MAX
    _expiries: dict[str, float] = field(default_factory=dict)

    def admit(self, nonce: str, *, now: float) -> bool:
        """Remember a nonce; False if it was seen before, or there is no room to remember it."""
        expiries = self._expiries
        # Insertion order is age order, so the expired ones are in front.
        while expiries:
            oldest = next(iter(expiries))
            if expiries[oldest] >= now:
                break
            del expiries[oldest]
        if nonce in expiries or len(expiries) >= self.capacity:
            return False
        expiries[nonce] = now + self.ttl_s
        return True


def check_freshness(nonce: str, created: str, *, nonces: NonceCache, now: float) -> None:
    """Refuse a message that is too old or new, or was seen before. Its MAC is right already.

    Raises:
        ClockSkew: The clocks differ by more than ``SKEW_S_MAX`` seconds, or it is an old message.
        Unauthorized: The nonce was used before.
    """
    if abs(now - int(created)) > SKEW_S_MAX:
        raise ClockSkew
    if not nonces.admit(nonce, now=now):
        raise Unauthorized


def is_stamp(nonce: str, created: str) -> bool:
    """Return whether nonce and time have the shape every signed message uses."""
    return bool(_NONCE.fullmatch(nonce) and _CREATED.fullmatch(created))


def mac_hex(key: bytes, label: bytes, parts: Iterable[str]) -> str:
    """Return the hex HMAC-SHA256 of a label line and these lines."""
    message = label + b"\n" + "\n".join(parts).encode("utf-8", "surrogateescape")
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def same_mac(expected: str, given: str) -> bool:
    """Compare two MACs without telling by time where they differ; any text may be given."""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogateescape"))


def _request_mac(
    key: bytes, *, method: str, target: str, body: bytes, shard: str, created: str, nonce: str
) -> str:
    digest = hashlib.sha256(body).hexdigest()
    return mac_hex(key, b"sp-req-v1", (method, target, digest, shard, created, nonce))


def sign_request(
    *,
    pair_key: bytes,
    key_id: str,
    shard: str,
    method: str,
    target: str,
    body: bytes,
    now: float,
    nonce: bytes,
) -> dict[str, str]:
    """Return the four headers to send with a control request.

    Args:
        target: Path and query exactly as they stand in the request line.
        nonce: 16 random bytes, never used twice.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    created = str(int(now))
    mac = _request_mac(
        pair_key,
        method=method,
        target=target,
        body=body,
        shard=shard,
        created=created,
        nonce=nonce.hex(),
    )
    return {
        HEADER_KEY_ID: key_id,
        HEADER_CREATED: created,
        HEADER_NONCE: nonce.hex(),
        HEADER_MAC: mac,
    }


def verify_request(
    *,
    pair_key: bytes | None,
    shard: str,
    method: str,
    target: str,
    body: bytes,
    headers: Mapping[str, str],
    nonces: NonceCache,
    now: float,
) -> str:
    """Return the request's MAC, which the answer is signed over, or refuse the request.

    Args:
        pair_key: The key that ``Shardpoint-Key-Id`` names here; None if it names none.
        headers: Any mapping with ``get``; names as written in this module or in lower case.

    Raises:
        Unauthorized: Unsigned, altered, for another shard, by another key, or replayed.
        ClockSkew: Rightly signed, but more than 30 seconds old or ahead.
    """
    created = _header(headers, HEADER_CREATED)
    nonce = _header(headers, HEADER_NONCE)
    given = _header(headers, HEADER_MAC)
    if pair_key is None or not is_stamp(nonce, created):
        raise Unauthorized
    expected = _request_mac(
        pair_key,
        method=method,
        target=target,
        body=body,
        shard=shard,
        created=created,
        nonce=nonce,
    )
    if not same_mac(expected, given):
        raise Unauthorized
    check_freshness(nonce, created, nonces=nonces, now=now)
    return expected


def sign_response(
    *, pair_key: bytes, status: int, body: bytes, request_mac: str
) -> dict[str, str]:
    """Return the header to send with the answer to the request that had this MAC."""
    return {HEADER_MAC: _response_mac(pair_key, status, body, request_mac)}


def verify_response(
    *, pair_key: bytes, status: int, body: bytes, request_mac: str, headers: Mapping[str, str]
) -> None:
    """Refuse an answer that is not this shard's answer to this request.

    Raises:
        ShardUntrusted: The MAC is missing or wrong.
    """
    expected = _response_mac(pair_key, status, body, request_mac)
    if not same_mac(expected, _header(headers, HEADER_MAC)):
        raise ShardUntrusted


def _response_mac(key: bytes, status: int, body: bytes, request_mac: str) -> str:
    digest = hashlib.sha256(body).hexdigest()
    return mac_hex(key, b"sp-res-v1", (str(status), digest, request_mac))


def _header(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name) or headers.get(name.lower()) or ""
