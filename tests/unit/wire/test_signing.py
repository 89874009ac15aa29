"""Control requests and answers: what is signed is what is acted on, once, now, here."""

from __future__ import annotations

from typing import Any

import pytest

from modeldefs.wire.problems import ClockSkew, ShardUntrusted, Unauthorized
from modeldefs.wire.signing import (
    NonceCache,
    sign_request,
    sign_response,
    verify_request,
    verify_response,
)

NOW = 1_700_000_000.0
CALL: dict[str, Any] = {
    "pair_key": b"p" * 32,
    "shard": "alpha",
    "method": "PUT",
    "target": "/_node/map?a=1",
    "body": b"{}",
}


def _signed(**changes: Any) -> dict[str, str]:
    return sign_request(**{**CALL, "key_id": "d1", "now": NOW, "nonce": bytes(16), **changes})


def _verify(headers: dict[str, str], nonces: NonceCache | None = None, **changes: Any) -> str:
    known = {"nonces": nonces or NonceCache(), "now": NOW, "headers": headers}
    return verify_request(**{**CALL, **known, **changes})


def test_a_signed_request_is_accepted_whatever_the_case_of_its_headers() -> None:
    """Verification returns the MAC that the answer is signed over."""
    headers = _signed()
    lower = {name.lower(): value for name, value in headers.items()}

    assert _verify(headers) == headers["Shardpoint-Mac"]
    assert _verify(lower) == headers["Shardpoint-Mac"]


@pytest.mark.parametrize(
    "change",
    [
        {"pair_key": b"q" * 32},
        {"pair_key": None},
        {"shard": "beta"},
        {"method": "POST"},
        {"target": "/_node/map?a=2"},
        {"body": b"{} "},
    ],
)
def test_what_was_not_signed_is_refused(change: dict[str, Any]) -> None:
    """Any difference between what was signed and what arrived is 401."""
    with pytest.raises(Unauthorized):
        _verify(_signed(), **change)


@pytest.mark.parametrize("name", ["Shardpoint-Created", "Shardpoint-Nonce", "Shardpoint-Mac"])
@pytest.mark.parametrize("value", ["", "x", "1700000001", "ff" * 16, "é", "-1", "1" * 4000])
def test_altered_headers_are_refused(name: str, value: str) -> None:
    """Time, nonce and MAC are signed too, and no text in them is an error of ours."""
    with pytest.raises(Unauthorized):
        _verify({**_signed(), name: value})


@pytest.mark.parametrize(("offset", "fresh"), [(-31, False), (-30, True), (30, True), (31, False)])
def test_thirty_seconds_is_the_most_that_clocks_may_differ(offset: int, fresh: bool) -> None:
    """Beyond that a rightly signed request is clock-skew: the reason can be told."""
    outcomes = {True: "accepted", False: "clock-skew"}
    try:
        _verify(_signed(), now=NOW + offset)
        outcome = "accepted"
    except ClockSkew as problem:
        outcome = problem.code

    assert outcome == outcomes[fresh]


def test_a_request_counts_once() -> None:
    """The same signed request again is refused as long as its time would pass."""
    nonces, headers = NonceCache(), _signed(now=NOW + 30)
    _verify(headers, nonces)
    for later in (0.0, 30.0, 59.9, 60.0):
        with pytest.raises(Unauthorized):
            _verify(headers, nonces, now=NOW + later)


def test_the_nonce_cache_is_bounded_and_forgets() -> None:
    """A full cache refuses rather than forgets what could still be replayed."""
    nonces = NonceCache(ttl_s=60, capacity=2)

    assert [nonces.admit(n, now=0) for n in ("a", "b", "c")] == [True, True, False]
    assert [nonces.admit(n, now=61) for n in ("a", "c")] == [True, True]


@pytest.mark.parametrize(
    "change", [{"status": 500}, {"body": b"no"}, {"request_mac": "00"}, {"pair_key": b"q" * 32}]
)
def test_an_answer_is_bound_to_its_request(change: dict[str, Any]) -> None:
    """An answer with another status, body, question or key did not come from this shard."""
    known: dict[str, Any] = {
        "pair_key": b"p" * 32,
        "status": 200,
        "body": b"ok",
        "request_mac": _signed()["Shardpoint-Mac"],
    }
    headers = sign_response(**known)
    verify_response(**known, headers=headers)

    with pytest.raises(ShardUntrusted):
        verify_response(**{**known, **change}, headers=headers)
    with pytest.raises(ShardUntrusted):
        verify_response(**known, headers={})
