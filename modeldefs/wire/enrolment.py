"""How a dispatcher and a shard node come to share a key, and how the node proves who it is.

Each has an identity: an X25519 and an Ed25519 key pair that never leave its file. The pair key is
HKDF-SHA256 of their X25519 secret, bound to both names, so it is never sent. The node signs the
whole exchange with Ed25519 and MACs it with the pair key: the dispatcher learns that whoever
answered holds both private keys of the fingerprint that a person confirms. A join token, known to
both beforehand, MACs question and answer, which no one in between can do.

Pure but for ``Identity.load`` and ``Identity.create``: addresses and randomness are passed in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from modeldefs.wire.problems import Conflict, InvalidRequest, ShardUntrusted, Unauthorized

KEY_BYTES = 32
SEAL_NONCE_BYTES = 12
PAIR_KEY_VERSION = 1

_ASK, _ANSWER = b"sp-enrol-ask-v1\n", b"sp-enrol-answer-v1\n"
# Members that prove an exchange are not part of what they prove.
_PROOFS = frozenset(("token_mac", "signature", "pair_mac"))


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """The public keys of a dispatcher or node; ``text`` is how they are sent and stored."""

    x25519: bytes
    ed25519: bytes

    @property
    def text(self) -> str:
        """Both keys as one base64 text."""
        return _encode(self.x25519 + self.ed25519)

    @property
    def fingerprint(self) -> str:
        """What people compare: SHA-256 of both keys, 64 hex digits in groups of 8."""
        digest = hashlib.sha256(b"sp-identity-v1\n" + self.x25519 + self.ed25519).hexdigest()
        return "-".join(digest[at : at + 8] for at in range(0, len(digest), 8))

    @classmethod
    def parse(cls, text: object) -> PublicIdentity:
        """Return the keys in a text.

        Raises:
            InvalidRequest: It is not 64 bytes of base64.
        """
        raw = _decode(text) if isinstance(text, str) else b""
        if len(raw) != 2 * KEY_BYTES:
            raise InvalidRequest("A public identity is 64 bytes in base64.")
        return cls(raw[:KEY_BYTES], raw[KEY_BYTES:])


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this dispatcher or node is: its id and its private keys."""

    id: str
    x25519: bytes = field(repr=False)
    ed25519: bytes = field(repr=False)

    @classmethod
    def generate(cls, id: str) -> Identity:
        """Return a new identity with this id."""
        return cls(
            id,
            X25519PrivateKey.generate().private_bytes_raw(),
            Ed25519PrivateKey.generate().private_bytes_raw(),
        )

    @classmethod
    def create(cls, path: Path, *, id: str) -> Identity:
        """Make an identity in a new file that only its owner may read.

        Raises:
            FileExistsError: There is one already; it is left as it is.
        """
        identity = cls.generate(id)
        document = {
            "id": id,
            "x25519": _encode(identity.x25519),
            "ed25519": _encode(identity.ed25519),
        }
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        return identity

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Return the identity in a file.

        Raises:
            PermissionError: Others than its owner may read it.
            ValueError: It is damaged.
        """
        if path.stat().st_mode & 0o077:
            raise PermissionError(f"{path} must be readable by its owner only (chmod 600)")
        document = json.loads(path.read_text())
        try:
            keys = [_decode(document[name]) for name in ("x25519", "ed25519")]
            if [len(key) for key in keys] != [KEY_BYTES, KEY_BYTES]:
                raise ValueError("a private key has 32 bytes")
            return cls(str(document["id"]), *keys)
        except (KeyError, TypeError, ValueError) as damage:
            raise ValueError(f"{path} is not an identity file") from damage

    @property
    def public(self) -> PublicIdentity:
        """The public half."""
        return PublicIdentity(
            X25519PrivateKey.from_private_bytes(self.x25519).public_key().public_bytes_raw(),
            Ed25519PrivateKey.from_private_bytes(self.ed25519).public_key().public_bytes_raw(),
        )

    def pair_key(self, peer: PublicIdentity, *, dispatcher: str, shard: str) -> bytes:
        """Return the 32 bytes that only this identity and its peer can compute.

        Raises:
            InvalidRequest: The peer's key is one that yields no secret.
        """
        own = X25519PrivateKey.from_private_bytes(self.x25519)
        try:
            secret = own.exchange(X25519PublicKey.from_public_bytes(peer.x25519))
        except ValueError:
            raise InvalidRequest("The peer's key exchange key is not usable.") from None
        info = f"sp|{dispatcher}|{shard}|{PAIR_KEY_VERSION}"
        return _derive(secret, info.encode())

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of a message."""
        return Ed25519PrivateKey.from_private_bytes(self.ed25519).sign(message)


def enrolment_request(
    identity: Identity, *, shard: str, nonce: bytes, join_token: str | None
) -> dict[str, Any]:
    """Return the document with which a dispatcher asks a node to become its shard."""
    request: dict[str, Any] = {
        "dispatcher": identity.id,
        "dispatcher_key": identity.public.text,
        "shard": shard,
        "nonce": nonce.hex(),
    }
    if join_token:
        request["token_mac"] = _token_mac(join_token, _ASK + _canonical(request))
    return request


@dataclass(frozen=True, slots=True)
class EnrolledDispatcher:
    """The one dispatcher that a node belongs to."""

    id: str
    key: PublicIdentity


def check_enrolment(
    request: Mapping[str, Any],
    *,
    shard: str,
    enrolled: EnrolledDispatcher | None,
    client_host: str,
    join_token: str | None,
) -> EnrolledDispatcher:
    """Return the dispatcher that this node may belong to from now on, or refuse it.

    A node that belongs to nobody takes the first dispatcher that has the join token or, when
    there is no token here, that asks from this machine. A node that belongs to one keeps it.

    Raises:
        InvalidRequest: The document is not an enrolment request for this shard.
        Unauthorized: No token, a wrong one, or from another machine without one.
        Conflict: The node belongs to another dispatcher, or this one has other keys.
    """
    texts = [request.get(name) for name in ("dispatcher", "dispatcher_key", "shard", "nonce")]
    if not all(isinstance(text, str) and 0 < len(text) <= 256 for text in texts):
        raise InvalidRequest("This is not an enrolment request.")
    if request["shard"] != shard:
        raise InvalidRequest("This node serves another shard.")
    asking = EnrolledDispatcher(
        request["dispatcher"], PublicIdentity.parse(request["dispatcher_key"])
    )
    if enrolled is not None:
        if enrolled != asking:
            raise Conflict("This node belongs to another dispatcher.")
        return enrolled
    if join_token:
        given = request.get("token_mac")
        expected = _token_mac(join_token, _ASK + _canonical(request))
        if not isinstance(given, str) or not _same(expected, given):
            raise Unauthorized("A valid join token is needed.")
    elif not is_loopback(client_host):
        raise Unauthorized("A valid join token is needed.")
    return asking


def enrolment_answer(
    identity: Identity,
    request: Mapping[str, Any],
    *,
    facts: Mapping[str, Any],
    join_token: str | None,
) -> dict[str, Any]:
    """Return the node's signed answer to a request that ``check_enrolment`` let pass.

    Args:
        facts: What the node says of itself (system identifier, bundle, counts): JSON values.
    """
    key = identity.public
    answer: dict[str, Any] = {
        **facts,
        "shard_key": key.text,
        "instance": identity.id,
        "fingerprint": key.fingerprint,
    }
    peer = PublicIdentity.parse(request["dispatcher_key"])
    pair_key = identity.pair_key(peer, dispatcher=request["dispatcher"], shard=request["shard"])
    exchange = _exchange(request, answer)
    answer["signature"] = _encode(identity.sign(exchange))
    answer["pair_mac"] = hmac.new(pair_key, exchange, hashlib.sha256).hexdigest()
    if join_token:
        answer["token_mac"] = _token_mac(join_token, exchange)
    return answer


def verify_enrolment_answer(
    identity: Identity,
    request: Mapping[str, Any],
    answer: Mapping[str, Any],
    *,
    join_token: str | None,
) -> tuple[PublicIdentity, bytes]:
    """Return the node's public keys and the pair key, or refuse the answer.

    Raises:
        ShardUntrusted: Altered, answered to another request, or by who lacks the private keys or
            the join token.
    """
    try:
        key = PublicIdentity.parse(answer.get("shard_key"))
        pair_key = identity.pair_key(key, dispatcher=request["dispatcher"], shard=request["shard"])
        exchange = _exchange(request, answer)
        signature = _decode(str(answer.get("signature")))
        Ed25519PublicKey.from_public_bytes(key.ed25519).verify(signature, exchange)
    except (InvalidRequest, InvalidSignature, ValueError):
        raise ShardUntrusted from None
    pair_mac = hmac.new(pair_key, exchange, hashlib.sha256).hexdigest()
    proofs = [_same(pair_mac, str(answer.get("pair_mac")))]
    if join_token:
        proofs.append(_same(_token_mac(join_token, exchange), str(answer.get("token_mac"))))
    if not all(proofs) or answer.get("fingerprint") != key.fingerprint:
        raise ShardUntrusted
    return key, pair_key


def is_loopback(host: str) -> bool:
    """Return whether an address is this machine's own; a unix socket's empty one is."""
    if not host:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def seal(pair_key: bytes, data: bytes, *, generation: int, nonce: bytes) -> str:
    """Return data that only the pair can read, bound to its generation, as base64.

    Args:
        nonce: 12 random bytes, never used twice with this pair key.
    """
    cipher = AESGCM(_derive(pair_key, b"sp|keyring"))
    return _encode(nonce + cipher.encrypt(nonce, data, b"%d" % generation))


def open_sealed(pair_key: bytes, sealed: str, *, generation: int) -> bytes:
    """Return what ``seal`` was given.

    Raises:
        Unauthorized: Altered, of another generation, or sealed with another key.
    """
    raw = _decode(sealed)
    try:
        cipher = AESGCM(_derive(pair_key, b"sp|keyring"))
        nonce, data = raw[:SEAL_NONCE_BYTES], raw[SEAL_NONCE_BYTES:]
        return cipher.decrypt(nonce, data, b"%d" % generation)
    except (InvalidTag, ValueError):
        raise Unauthorized("The sealed data was not sealed for this node.") from None


def _derive(secret: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def _canonical(document: Mapping[str, Any]) -> bytes:
    proven = {name: value for name, value in document.items() if name not in _PROOFS}
    return json.dumps(proven, sort_keys=True, separators=(",", ":")).encode()


def _exchange(request: Mapping[str, Any], answer: Mapping[str, Any]) -> bytes:
    return _ANSWER + _canonical(request) + b"\n" + _canonical(answer)


def _token_mac(join_token: str, message: bytes) -> str:
    return hmac.new(join_token.encode(), message, hashlib.sha256).hexdigest()


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
