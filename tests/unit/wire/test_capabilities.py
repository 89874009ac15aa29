"""Capabilities: signed by the dispatcher, for a short time, never more than their key."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from modeldefs.wire.capabilities import (
    CAPABILITY_BYTES_MAX,
    LIFETIME_S_MAX,
    PREFIX,
    SCANNER_PATTERN,
    CapabilityReader,
    Claims,
    capability,
)
from modeldefs.wire.enrolment import Identity
from modeldefs.wire.keys import KeyEntry, Keyring, Principal, digest, mint_key
from modeldefs.wire.problems import InvalidRequest, Unauthorized
from modeldefs.wire.quotas import checked_limits

PEPPER = bytes(range(32))
NOW = 1_800_000_000
HERE = "127.0.0.1"
DISPATCHER = Identity.generate("cluster-1")
READER = CapabilityReader(audience=DISPATCHER.id, public_key=DISPATCHER.public.ed25519)
MINTED = mint_key()
ENTRY = KeyEntry(
    kid=MINTED.kid,
    digest=digest(PEPPER, MINTED.secret),
    owner="reports",
    scopes=("User:*:read",),
    limits=checked_limits(rate=10, window_s=60, burst=None, concurrency=None),
)
GENERATION = 7


def _claims(key: KeyEntry = ENTRY, **known: Any) -> Claims:
    members: dict[str, Any] = {
        "audience": DISPATCHER.id, "key": key, "generation": GENERATION, "epoch": 3,
        "issued": NOW, "expires": NOW + 300,
    }  # fmt: skip
    return Claims(**(members | known))


def _token(*, sign: Callable[[bytes], bytes] = DISPATCHER.sign, **known: Any) -> str:
    return capability(_claims(**known), sign=sign)


def _ring(*keys: KeyEntry, generation: int = GENERATION) -> Keyring:
    return Keyring(keys, {1: PEPPER}, generation=generation).accepting(READER)


def _principal(ring: Keyring, text: str, now: float = NOW, host: str = HERE) -> Principal | None:
    """Return who is let in with a text; None for nobody."""
    try:
        return ring.authenticate(f"Bearer {text}".encode(), host, now)
    except Unauthorized:
        return None


def test_a_capability_is_its_keys_caller() -> None:
    """Owner, key id, scopes and limits are those of the key, so that walks, retries and budgets
    are the same; it holds no secret, fits a header, and a scanner finds it."""
    text = _token()
    principal = _principal(_ring(ENTRY), text)
    own = _principal(_ring(ENTRY), MINTED.text)

    assert principal is not None
    assert own is not None
    assert (own.kid, own.owner, own.scopes, own.limits) == (
        principal.kid, principal.owner, principal.scopes, principal.limits,
    )  # fmt: skip
    assert (principal.within, own.within) == (ENTRY.scopes, None)
    assert principal.may("User", 2, "get_user", "read")
    assert not principal.may("User", 2, "insert_user", "write")
    assert "" == READER.read(text).key.digest
    assert re.search(SCANNER_PATTERN, f"token={text}\n")
    assert text.startswith(PREFIX)
    assert len(text) < 700
    assert _principal(_ring(ENTRY), text) == principal


@pytest.mark.parametrize(
    ("moment", "is_in"),
    [(NOW - 31, False), (NOW - 30, True), (NOW, True), (NOW + 299, True), (NOW + 300, False)],
)
def test_it_holds_until_it_expires(moment: float, is_in: bool) -> None:
    """To the second, also where it was proven before; a reader whose clock is up to 30 s behind
    takes it at once."""
    ring, text = _ring(ENTRY), _token()
    assert _principal(ring, text, NOW)

    assert is_in is bool(_principal(ring, text, moment))


def test_it_never_outlives_its_key() -> None:
    """A key that ends sooner, is not valid yet, or is bound to networks binds its tokens too."""
    ends = msgspec.structs.replace(ENTRY, expires=NOW + 10.0)
    later = msgspec.structs.replace(ENTRY, not_before=NOW + 10.0)
    bound = msgspec.structs.replace(ENTRY, cidrs=("10.0.0.0/8",))
    told = {
        "ends": [bool(_principal(_ring(ends), _token(), NOW + at)) for at in (9, 10)],
        "later": [bool(_principal(_ring(later), _token(), NOW + at)) for at in (9, 10)],
        "bound": [
            bool(_principal(_ring(bound), _token(), NOW, at)) for at in (HERE, "::ffff:10.1.1.1")
        ],
        # What no keyring knows yet is as it is told.
        "unknown": [
            bool(_principal(_ring(generation=6), _token(key=bound), NOW, at))
            for at in (HERE, "10.1.1.1")
        ],
    }

    assert told == {
        "ends": [True, False], "later": [False, True], "bound": [False, True],
        "unknown": [False, True],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "generation", "is_in"),
    [
        ([ENTRY], GENERATION, True),
        ([ENTRY], GENERATION + 1, True),
        ([], GENERATION + 1, False),  # revoked since
        ([], GENERATION, False),
        ([msgspec.structs.replace(ENTRY, revoked=True)], GENERATION - 1, False),
        ([], GENERATION - 1, True),  # a key that is newer than this keyring
    ],
)
def test_a_revoked_keys_token_dies_with_the_keyring(
    keys: list[KeyEntry], generation: int, is_in: bool
) -> None:
    """A keyring as new as the token decides: what it lacks has ended. An older one may lack a key
    because it is new, and then the dispatcher's word is enough."""
    assert is_in is bool(_principal(_ring(*keys, generation=generation), _token()))


def test_narrower_scopes_narrow_and_wider_ones_do_not_widen() -> None:
    """What is asked for and what the key may do must both allow a call, also when the key lost
    scopes after the token was made; no scopes are none."""
    wide = KeyEntry(kid=MINTED.kid, digest=ENTRY.digest, scopes=("*", "!Flight"))
    lesser = msgspec.structs.replace(wide, scopes=("User:*:read",))
    calls = [("User", "read"), ("User", "write"), ("Flight", "read"), ("Plane", "write")]

    def may(key: KeyEntry, within: tuple[str, ...] | None) -> list[bool]:
        principal = _principal(_ring(key), _token(key=wide, within=within))
        assert principal is not None
        return [principal.may(model, 1, "any", verb) for model, verb in calls]

    assert may(wide, None) == [True, True, False, True]
    assert may(wide, ("*",)) == [True, True, False, True]
    assert may(wide, ("*:*:read",)) == [True, False, False, False]
    assert may(lesser, ("*",)) == [True, False, False, False]
    assert may(wide, ()) == [False] * 4


def test_every_altered_character_is_refused() -> None:
    """Wherever it is, in the claims, the signature or its last bits, which no byte holds."""
    text, ring = _token(), _ring(ENTRY)
    alphabet = string.ascii_letters + string.digits + "-_."
    others = [text[:-1], text + "A", text + "=", text * 2, f"spc_.{'A' * 86}"]
    for at, own in enumerate(text):
        place = alphabet.index(own)
        near = {alphabet[place - 7], alphabet[place - 1]}  # other bits, and the very last ones
        others += [text[:at] + other + text[at + 1 :] for other in near]

    assert [] == [other for other in others if _principal(ring, other)]
    assert _principal(ring, text)


@pytest.mark.parametrize(
    "text",
    [
        _token(sign=Identity.generate("cluster-1").sign),
        _token(audience="cluster-2"),
        _token(expires=NOW),
        _token(expires=NOW - 1),
        _token(expires=NOW + LIFETIME_S_MAX + 1),
        _token(sign=lambda message: DISPATCHER.sign(message[message.index(b"\n") + 1 :])),
    ],
    ids=["another signer", "another cluster", "no time", "negative", "too long", "no label"],
)
def test_tokens_of_others_and_for_too_long_are_refused(text: str) -> None:
    """Only this cluster's dispatcher makes them, for an hour at most, and what else it signs is
    none; the refusal is the one that every caller gets."""
    with pytest.raises(Unauthorized) as refused:
        _ring(ENTRY).authenticate(text, HERE, NOW)

    assert Unauthorized().document() == refused.value.document()


def test_who_takes_no_capabilities_refuses_them() -> None:
    """A keyring that was not told whose they are: a node that stands alone."""
    assert None is _principal(Keyring([ENTRY], {1: PEPPER}), _token())


def test_a_token_that_would_not_fit_a_header_is_not_made() -> None:
    """It says why."""
    many = msgspec.structs.replace(
        ENTRY, scopes=tuple(f"Model{number}:an_endpoint_{number}:read" for number in range(200))
    )
    with pytest.raises(InvalidRequest, match=str(CAPABILITY_BYTES_MAX)):
        _token(key=many)
