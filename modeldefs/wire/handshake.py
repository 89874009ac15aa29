"""How a dispatcher turns an HTTP connection to a node into a stream of frames, and both prove it.

The dispatcher asks ``GET /_stream`` to upgrade, signed with the pair key; the node answers 101,
signed over both nonces. The keys of the frames come from the pair key and both nonces, so a
recorded connection cannot be played again to either end, and whoever lacks the pair key can
neither read the keys nor send a frame. A refusal is an ordinary problem+json answer; as anyone on
the way can forge one, it is a hint for people and never changes what is trusted.

Sans-IO: time, nonces and randomness are passed in.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from modeldefs.wire.frames import SessionKeys
from modeldefs.wire.http1 import HttpRequest
from modeldefs.wire.problems import (
    STANDARD_PROBLEMS,
    ContractMismatch,
    InvalidRequest,
    Problem,
    Unauthorized,
    WrongShard,
)
from modeldefs.wire.signing import (
    NONCE_BYTES,
    NonceCache,
    check_freshness,
    is_stamp,
    mac_hex,
    same_mac,
)

STREAM_PATH = b"/_stream"
STREAM_PROTOCOL = b"shardpoint/1"
REPLY_BYTES_MAX = 65_536
# What the client reports when a peer answered the upgrade with something else than a problem.
NO_STREAM_THERE = "shard-unavailable"
FORGED = "shard-untrusted"

_ASK, _GRANT = b"sp-stream-v1", b"sp-stream-ok-v1"


@dataclass(frozen=True, slots=True)
class StreamIdentity:
    """Who asks which shard, running which bundle, and the key that only these two have."""

    dispatcher: str
    shard: str
    bundle: str
    pair_key: bytes = field(repr=False)


class Session(NamedTuple):
    """What the node knows of an accepted stream."""

    dispatcher: str
    keys: SessionKeys


class UpgradeRefused(Exception):
    """The peer did not grant the stream; ``code`` is the problem's, as far as it told one."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def upgrade_request(identity: StreamIdentity, *, host: str, nonce: bytes, now: float) -> bytes:
    """Return the bytes that ask a node for a stream."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    created = str(int(now))
    mac = _ask_mac(
        identity.pair_key,
        identity.dispatcher,
        identity.shard,
        identity.bundle,
        nonce.hex(),
        created,
    )
    lines = (
        f"GET {STREAM_PATH.decode()} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        f"Upgrade: {STREAM_PROTOCOL.decode()}",
        f"Shardpoint-Dispatcher: {identity.dispatcher}",
        f"Shardpoint-Shard: {identity.shard}",
        f"Shardpoint-Bundle: {identity.bundle}",
        f"Shardpoint-Nonce: {nonce.hex()}",
        f"Shardpoint-Created: {created}",
        f"Shardpoint-Mac: {mac}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def accept_upgrade(
    request: HttpRequest,
    *,
    pair_key_of: Callable[[str], bytes | None],
    shard: str,
    bundle: str,
    nonces: NonceCache,
    now: float,
    nonce: bytes,
) -> tuple[bytes, Session] | Problem:
    """Return the 101 answer to write and the session, or the problem to answer with.

    The MAC is checked first: who has no key learns nothing but that.

    Args:
        pair_key_of: The key shared with the dispatcher of this id; None if it is not ours.
        nonce: 16 random bytes, never used twice: this end's half of the session keys.
    """
    asked = _signed_headers(request)
    if asked is None:
        return InvalidRequest("This is not a complete request for a stream.")
    if not is_stamp(asked.nonce, asked.created):
        return Unauthorized()
    pair_key = pair_key_of(asked.dispatcher)
    if pair_key is None:
        return Unauthorized()
    expected = _ask_mac(pair_key, *asked[:5])
    if not same_mac(expected, asked.mac):
        return Unauthorized()
    try:
        check_freshness(asked.nonce, asked.created, nonces=nonces, now=now)
    except Problem as problem:
        return problem
    if asked.shard != shard:
        return WrongShard("This node serves another shard.")
    if asked.bundle != bundle:
        return ContractMismatch("Dispatcher and node run different bundles.")
    mine = nonce.hex()
    granted = _grant_mac(pair_key, asked.nonce, mine, bundle, shard)
    answer = (
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
        f"Upgrade: {STREAM_PROTOCOL.decode()}\r\n"
        f"Shardpoint-Nonce: {mine}\r\nShardpoint-Mac: {granted}\r\n\r\n"
    )
    to_node, to_dispatcher = _session_keys(pair_key, asked.nonce, mine)
    keys = SessionKeys(sending=to_dispatcher, receiving=to_node)
    return answer.encode("ascii"), Session(asked.dispatcher, keys)


class UpgradeReply:
    """Reads a node's answer to ``upgrade_request``, however it is split."""

    __slots__ = ("_buffer", "_identity", "_nonce")

    def __init__(self, identity: StreamIdentity, *, nonce: bytes) -> None:
        self._identity = identity
        self._nonce = nonce.hex()
        self._buffer = b""

    def feed(self, data: bytes, *, ended: bool = False) -> tuple[SessionKeys, bytes] | None:
        """Return the session keys and what came after the answer; None while it is incomplete.

        Raises:
            UpgradeRefused: The node said no, said nothing sensible, or is not the node.
        """
        self._buffer += data
        head, complete, rest = self._buffer.partition(b"\r\n\r\n")
        if len(self._buffer) > REPLY_BYTES_MAX and not complete:
            raise UpgradeRefused(NO_STREAM_THERE)
        if not complete:
            if ended:
                raise UpgradeRefused(NO_STREAM_THERE)
            return None
        status, headers = _parse_head(head)
        if status == b"101":
            return self._granted(headers), rest
        length = headers.get(b"content-length", b"")
        due = min(int(length), REPLY_BYTES_MAX) if length.isdigit() and len(length) < 9 else 0
        if len(rest) < due and not ended:
            return None
        raise UpgradeRefused(_problem_code(rest))

    def _granted(self, headers: dict[bytes, bytes]) -> SessionKeys:
        theirs = headers.get(b"shardpoint-nonce", b"").decode("latin-1")
        identity = self._identity
        expected = _grant_mac(
            identity.pair_key, self._nonce, theirs, identity.bundle, identity.shard
        )
        given = headers.get(b"shardpoint-mac", b"").decode("latin-1")
        if not is_stamp(theirs, "0") or not same_mac(expected, given):
            raise UpgradeRefused(FORGED)
        to_node, to_dispatcher = _session_keys(identity.pair_key, self._nonce, theirs)
        return SessionKeys(sending=to_node, receiving=to_dispatcher)


class _Asked(NamedTuple):
    dispatcher: str
    shard: str
    bundle: str
    nonce: str
    created: str
    mac: str


def _signed_headers(request: HttpRequest) -> _Asked | None:
    found: dict[bytes, bytes] = {}
    for name, value in request.headers:
        if name in found and name.startswith(b"shardpoint-"):
            return None
        found[name] = value
    if request.method != b"GET" or found.get(b"upgrade", b"").lower() != STREAM_PROTOCOL:
        return None
    values = [found.get(b"shardpoint-" + name.encode()) for name in _Asked._fields]
    texts = [value.decode("latin-1") for value in values if value]
    return _Asked(*texts) if len(texts) == len(_Asked._fields) else None


def _ask_mac(
    key: bytes, dispatcher: str, shard: str, bundle: str, nonce: str, created: str
) -> str:
    return mac_hex(key, _ASK, (dispatcher, shard, bundle, nonce, created))


def _grant_mac(key: bytes, asked_nonce: str, nonce: str, bundle: str, shard: str) -> str:
    return mac_hex(key, _GRANT, (asked_nonce, nonce, bundle, shard))


def _session_keys(key: bytes, asked_nonce: str, nonce: str) -> tuple[bytes, bytes]:
    nonces = bytes.fromhex(asked_nonce) + bytes.fromhex(nonce)
    to_node = hmac.digest(key, b"sp-stream to node|" + nonces, hashlib.sha256)
    to_dispatcher = hmac.digest(key, b"sp-stream to dispatcher|" + nonces, hashlib.sha256)
    return to_node, to_dispatcher


def _parse_head(head: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise UpgradeRefused(NO_STREAM_THERE)
    pairs = (line.partition(b":") for line in lines)
    return rest[:3], {name.strip().lower(): value.strip() for name, _, value in pairs}


def _problem_code(body: bytes) -> str:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return NO_STREAM_THERE
    code = document.get("code") if isinstance(document, dict) else None
    return code if isinstance(code, str) and code in STANDARD_PROBLEMS else NO_STREAM_THERE
