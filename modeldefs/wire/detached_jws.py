"""A signature that travels beside what it signs: a detached JWS (RFC 7515, appendix F; RFC 7797).

Ed25519 over the bytes as they are sent, so that whoever verifies needs no canonical form of them,
and any JOSE library can. One fixed header: who verifies expects exactly it, and no other algorithm
can be slipped in.

Pure: the key is passed in as what signs, or as its public half.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def detached_jws(payload: bytes, *, key_id: str, sign: Callable[[bytes], bytes]) -> str:
    """Return the signature of some bytes, as a header can carry it.

    Args:
        payload: What is signed.
        key_id: Whose signature it is.
        sign: Makes an Ed25519 signature.
    """
    head = _head(key_id)
    return f"{head}..{_encode(sign(_signed(head, payload)))}"


def is_signed(payload: bytes, jws: str, *, key_id: str, public_key: bytes) -> bool:
    """Say whether ``detached_jws`` made this of these bytes, with this key."""
    head, dots, signature = jws.partition("..")
    if not dots or head != _head(key_id):
        return False
    try:
        raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        Ed25519PublicKey.from_public_bytes(public_key).verify(raw, _signed(head, payload))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return _encode(raw) == signature


def _head(key_id: str) -> str:
    members = {"alg": "EdDSA", "b64": False, "crit": ["b64"], "kid": key_id}
    return _encode(json.dumps(members, separators=(",", ":")).encode())


def _signed(head: str, payload: bytes) -> bytes:
    return head.encode("ascii") + b"." + payload


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
