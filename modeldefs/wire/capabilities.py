"""Capabilities: what a key may do, signed by the dispatcher, for a short time.

A token reads ``spc_<claims>.<signature>``: base64url of JSON, and an Ed25519 signature of the
dispatcher over it. It holds no secret, and who has it may use it until it expires. A node checks
it with the public key that it was enrolled with, asking nobody. A keyring that knows what became
of the key since decides with it: a capability never outlives its key where that is known, and
never may do more than it.

Invariant: no byte of a token can be changed, in its claims, its signature or its encoding.

Pure: time and signing are passed in.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from modeldefs.wire.keys import KeyEntry, Proven, proven
from modeldefs.wire.problems import InvalidRequest, Unauthorized

PREFIX = "spc_"
CAPABILITY_BYTES_MAX = 6_000  # a header block has 32 KiB in all, and other headers too
LIFETIME_S_MAX = 3_600
EARLY_S_MAX = 30.0  # how far behind the dispatcher's clock the reader's may be
SCANNER_PATTERN = r"\bspc_[0-9A-Za-z_-]{40,}\.[0-9A-Za-z_-]{86}"
"""What a secret scanner looks for."""

_LABEL = b"sp-capability-v1\n"
_SHAPE = re.compile(r"spc_([0-9A-Za-z_-]+)\.([0-9A-Za-z_-]{86})")


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the dispatcher says of one token."""

    audience: str  # the cluster: its dispatcher's id
    key: KeyEntry  # without the digest of its secret
    generation: int  # of the keyring that had the key
    epoch: int  # of the shard map then
    issued: int
    expires: int
    within: tuple[str, ...] | None = None  # scopes that it is narrowed to, beside the key's own


class CapabilityReader:
    """Reads the tokens of one cluster."""

    def __init__(self, *, audience: str, public_key: bytes) -> None:
        self._audience = audience
        self._public_key = Ed25519PublicKey.from_public_bytes(public_key)

    def read(self, text: str) -> Claims:
        """Return what a token says; whether its time has come is for the caller to see.

        Raises:
            Unauthorized: Altered, malformed, of another cluster, or for longer than any may be.
        """
        found = _SHAPE.fullmatch(text) if len(text) <= CAPABILITY_BYTES_MAX else None
        if found is None:
            raise Unauthorized
        try:
            self._public_key.verify(_decode(found[2]), _LABEL + found[1].encode())
            claims = _claims.decode(_decode(found[1]))
        except (InvalidSignature, ValueError):
            raise Unauthorized from None
        lifetime_s = claims.expires - claims.issued
        if claims.audience != self._audience or not 0 < lifetime_s <= LIFETIME_S_MAX:
            raise Unauthorized
        return claims

    def prove(self, text: str, keys: Mapping[str, KeyEntry], generation: int) -> Proven:
        """Return who has a token, and what the key may do by the newest that is known of it.

        Args:
            text: The token.
            keys: What is known of keys here, by their ids.
            generation: Of these keys.

        Raises:
            Unauthorized: It is none of this cluster's, or its key has ended.
        """
        claims = self.read(text)
        entry = keys.get(claims.key.kid)
        if entry is None:
            # A key that is missing among keys as new as the token has ended; among older ones it
            # may be too new to be there.
            if claims.generation <= generation:
                raise Unauthorized
            entry = claims.key
        if entry.revoked:
            raise Unauthorized
        found = proven(entry, entry.scopes if claims.within is None else claims.within)
        return found._replace(
            not_before=max(found.not_before, claims.issued - EARLY_S_MAX),
            expires=min(found.expires, claims.expires),
        )


def capability(claims: Claims, *, sign: Callable[[bytes], bytes]) -> str:
    """Return the token that says these things.

    Args:
        claims: About a key; the digest of its secret is left out.
        sign: Makes the dispatcher's Ed25519 signature.

    Raises:
        InvalidRequest: It would be too long to be sent as a header.
    """
    bare = msgspec.structs.replace(claims.key, digest="")
    told = _encode(msgspec.json.encode(msgspec.structs.replace(claims, key=bare)))
    text = f"{PREFIX}{told}.{_encode(sign(_LABEL + told.encode()))}"
    if len(text) > CAPABILITY_BYTES_MAX:
        raise InvalidRequest(
            f"The capability would have {len(text)} bytes, more than {CAPABILITY_BYTES_MAX}: "
            "the key has too many scopes or networks for one."
        )
    return text


_claims = msgspec.json.Decoder(Claims)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Return the bytes of a text.

    Raises:
        ValueError: It is no base64url, or not the one text that these bytes have.
    """
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as malformed:
        raise ValueError(text[:8]) from malformed
    if _encode(raw) != text:
        raise ValueError("bits that mean nothing")
    return raw
