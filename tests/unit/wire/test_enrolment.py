"""Enrolment: both ends reach one key that was never sent, or neither trusts the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modeldefs.wire.enrolment import (
    EnrolledDispatcher,
    Identity,
    PublicIdentity,
    check_enrolment,
    enrolment_answer,
    enrolment_request,
    is_loopback,
    open_sealed,
    seal,
    verify_enrolment_answer,
)
from modeldefs.wire.problems import Conflict, InvalidRequest, Problem, ShardUntrusted, Unauthorized

DISPATCHER, NODE, OTHER = (Identity.generate(name) for name in ("d1", "n1", "x1"))
FACTS = {"system_identifier": "7", "bundle": "b1", "standalone": True}


def _ask(token: str | None = None) -> dict[str, Any]:
    return enrolment_request(DISPATCHER, shard="alpha", nonce=bytes(16), join_token=token)


def _check(request: dict[str, Any], **changes: Any) -> EnrolledDispatcher:
    known: dict[str, Any] = {
        "shard": "alpha",
        "enrolled": None,
        "client_host": "127.0.0.1",
        "join_token": None,
    }
    return check_enrolment(request, **{**known, **changes})


@pytest.mark.parametrize("token", [None, "secret"])
def test_both_ends_reach_the_same_key(token: str | None) -> None:
    """The whole exchange, through JSON: one pair key on both sides, and the node's fingerprint."""
    request = json.loads(json.dumps(_ask(token)))
    asking = _check(request, join_token=token)
    answer = enrolment_answer(NODE, request, facts=FACTS, join_token=token)
    key, pair_key = verify_enrolment_answer(
        DISPATCHER, request, json.loads(json.dumps(answer)), join_token=token
    )

    assert pair_key == NODE.pair_key(asking.key, dispatcher="d1", shard="alpha")
    assert len(pair_key) == 32
    assert key == NODE.public
    assert answer["fingerprint"] == NODE.public.fingerprint
    assert pair_key != NODE.pair_key(asking.key, dispatcher="d1", shard="beta")


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": "b2"},
        {"instance": "n2"},
        {"extra": 1},
        {"shard_key": OTHER.public.text},
        {"shard_key": None},
        {"signature": ""},
        {"signature": None},
        {"pair_mac": "00"},
        {"token_mac": "00"},
        {"fingerprint": "00"},
    ],
)
def test_an_altered_answer_is_not_trusted(change: dict[str, Any]) -> None:
    """Every member of the answer is proven, facts included."""
    request = _ask("secret")
    answer = enrolment_answer(NODE, request, facts=FACTS, join_token="secret")

    with pytest.raises(ShardUntrusted):
        verify_enrolment_answer(DISPATCHER, request, {**answer, **change}, join_token="secret")


def test_an_answer_to_another_request_is_not_trusted() -> None:
    """A recorded answer proves nothing to a new question, nor one by who lacks the token."""
    answer = enrolment_answer(NODE, _ask("secret"), facts=FACTS, join_token="secret")
    asked_again = enrolment_request(
        DISPATCHER, shard="alpha", nonce=b"n" * 16, join_token="secret"
    )
    tokenless = enrolment_answer(NODE, asked_again, facts=FACTS, join_token=None)

    for given in (answer, tokenless):
        with pytest.raises(ShardUntrusted):
            verify_enrolment_answer(DISPATCHER, asked_again, given, join_token="secret")


ENROLLED = EnrolledDispatcher("d1", DISPATCHER.public)
REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], type[Problem]]] = {
    "from afar without a token": ({}, {"client_host": "10.0.0.1"}, Unauthorized),
    "token needed here too": ({}, {"join_token": "secret"}, Unauthorized),
    "wrong token": (_ask("guess"), {"join_token": "secret"}, Unauthorized),
    "altered under a token": (
        {**_ask("secret"), "dispatcher_key": OTHER.public.text},
        {"join_token": "secret"},
        Unauthorized,
    ),
    "another dispatcher": (
        {"dispatcher": "d2"},
        {"enrolled": ENROLLED},
        Conflict,
    ),
    "another key": ({"dispatcher_key": OTHER.public.text}, {"enrolled": ENROLLED}, Conflict),
    "another shard": ({"shard": "beta"}, {}, InvalidRequest),
    "no key": ({"dispatcher_key": "x"}, {}, InvalidRequest),
    "no text": ({"nonce": 5}, {}, InvalidRequest),
    "no end": ({"nonce": "x" * 257}, {}, InvalidRequest),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_node_refuses_who_may_not_have_it(case: str) -> None:
    """Who has no token, from elsewhere or when one is set, or another's node: refused."""
    change, setting, problem = REFUSALS[case]

    with pytest.raises(problem):
        _check({**_ask(), **change}, **setting)


def test_a_node_stays_with_its_dispatcher() -> None:
    """The dispatcher it belongs to may enrol it again, from anywhere: nothing changes."""
    assert _check(_ask(), enrolled=ENROLLED, client_host="10.0.0.1") == ENROLLED


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
    ],
)
def test_loopback_is_an_address_not_a_name(host: str, own: bool) -> None:
    """Only addresses of this machine count, also as IPv4 in IPv6."""
    assert is_loopback(host) is own


def test_identities_are_files_of_their_owner(tmp_path: Path) -> None:
    """A file is made once with mode 600, loads as it was, and is refused when others may read."""
    path = tmp_path / "identity.json"
    identity = Identity.create(path, id="n1")

    assert path.stat().st_mode & 0o777 == 0o600
    assert Identity.load(path) == identity
    with pytest.raises(FileExistsError):
        Identity.create(path, id="n2")
    path.chmod(0o640)
    with pytest.raises(PermissionError):
        Identity.load(path)


@pytest.mark.parametrize("text", ["{}", '{"id": "a", "x25519": "AA==", "ed25519": "AA=="}', "x"])
def test_a_damaged_identity_file_is_told(tmp_path: Path, text: str) -> None:
    """A damaged file is an error that names it, never a new identity."""
    path = tmp_path / "identity.json"
    path.touch(0o600)
    path.write_text(text)

    with pytest.raises(ValueError):
        Identity.load(path)


def test_private_keys_are_not_shown() -> None:
    """An identity in a log line shows its id only."""
    assert repr(NODE) == "Identity(id='n1')"


def test_public_identities_are_texts() -> None:
    """The text form is the identity; the fingerprint differs with every key."""
    assert PublicIdentity.parse(NODE.public.text) == NODE.public
    assert NODE.public.fingerprint != OTHER.public.fingerprint
    assert len(NODE.public.fingerprint.replace("-", "")) == 64


def test_a_weak_key_yields_no_secret() -> None:
    """The all-zero point, which would make the secret known to everybody, is refused."""
    with pytest.raises(InvalidRequest):
        NODE.pair_key(PublicIdentity(bytes(32), bytes(32)), dispatcher="d1", shard="alpha")


def test_what_is_sealed_opens_for_the_pair_only() -> None:
    """Sealed data opens with its key and generation, and with nothing else."""
    key = b"p" * 32
    sealed = seal(key, b"keyring", generation=3, nonce=b"n" * 12)

    assert open_sealed(key, sealed, generation=3) == b"keyring"
    for other in ((b"q" * 32, sealed, 3), (key, sealed, 4), (key, sealed[:-8], 3), (key, "", 3)):
        with pytest.raises(Unauthorized):
            open_sealed(other[0], other[1], generation=other[2])
