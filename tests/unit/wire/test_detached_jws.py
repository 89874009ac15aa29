"""A signature beside what it signs, as any JOSE library reads it."""

from __future__ import annotations

import base64
import json

import pytest

from modeldefs.wire.detached_jws import detached_jws, is_signed
from modeldefs.wire.enrolment import Identity

SIGNER = Identity.generate("cluster-1")
PAYLOAD = '{"epoch":1,"name":"Åsa"}'.encode()
JWS = detached_jws(PAYLOAD, key_id=SIGNER.id, sign=SIGNER.sign)


def _holds(payload: bytes = PAYLOAD, jws: str = JWS, key_id: str = SIGNER.id) -> bool:
    return is_signed(payload, jws, key_id=key_id, public_key=SIGNER.public.ed25519)


def test_it_is_what_rfc_7797_says() -> None:
    """Header and signature in base64url with nothing between; the header says that the payload is
    taken as it is, so the signature is over header, dot and those bytes."""
    head, middle, signature = JWS.split(".")
    told = json.loads(base64.urlsafe_b64decode(head + "=="))
    signed = SIGNER.sign(head.encode() + b"." + PAYLOAD)  # the same each time

    assert middle == ""
    assert told == {"alg": "EdDSA", "b64": False, "crit": ["b64"], "kid": SIGNER.id}
    assert base64.urlsafe_b64decode(signature + "==") == signed
    assert _holds()


def _with_head(**members: object) -> str:
    """Return a signature under another header, which its own signer made."""
    head = base64.urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=")
    signature = base64.urlsafe_b64encode(SIGNER.sign(head + b"." + PAYLOAD)).rstrip(b"=")
    return f"{head.decode()}..{signature.decode()}"


@pytest.mark.parametrize(
    "jws",
    [
        "", "..", JWS.replace("..", "."), JWS + "A", JWS + "=", JWS[:-1], "x" + JWS,
        JWS.replace("..", "..é"),
        detached_jws(PAYLOAD, key_id=SIGNER.id, sign=Identity.generate("cluster-1").sign),
        _with_head(alg="none", kid=SIGNER.id),
        _with_head(alg="EdDSA", kid=SIGNER.id),
    ],
)  # fmt: skip
def test_no_other_signature_holds(jws: str) -> None:
    """Another signer's, another algorithm's, another encoding of the same bits."""
    assert not _holds(jws=jws)


def test_no_other_bytes_or_signer_hold() -> None:
    """One byte more, and the name of another."""
    assert not _holds(PAYLOAD + b" ")
    assert not _holds(key_id="cluster-2")
