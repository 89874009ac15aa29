"""API keys: shape, checksum, keyrings and scopes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldefs.wire import keys
from modeldefs.wire.keys import (
    ALPHABET,
    PREFIXES,
    KeyEntry,
    Keyring,
    MintedKey,
    Principal,
    Scope,
    ScopeMalformed,
    digest,
    inside_networks,
    key_of_header,
    mint_key,
    parse_key,
    parse_scope,
    required_scope,
    scope_allows,
)
from modeldefs.wire.problems import Unauthorized

PEPPER = bytes(range(32))
NOW = 1_800_000_000.0
GOLDEN = "spk_live_0123456789_" + "A" * 43


def entry(minted: MintedKey, **known: object) -> KeyEntry:
    """Return what is stored of a key."""
    members = {"kid": minted.kid, "digest": digest(PEPPER, minted.secret), **known}
    return KeyEntry(**members)  # type: ignore[arg-type]


def ring(*entries: KeyEntry, generation: int = 1) -> Keyring:
    """Return a keyring with the test's pepper."""
    return Keyring(entries, {1: PEPPER}, generation=generation)


@pytest.mark.parametrize("prefix", sorted(PREFIXES))
def test_a_minted_key_parses_into_its_parts(prefix: str) -> None:
    """Every kind of key is read back as what it was made of."""
    minted = mint_key(prefix)

    parsed = parse_key(minted.text)

    assert parsed is not None
    assert (prefix, minted.kid, minted.secret) == parsed
    assert PREFIXES[prefix] == (parsed.kind, parsed.environment)
    assert re.search(keys.SCANNER_PATTERN, f"key={minted.text}\n")


def test_two_keys_are_never_the_same() -> None:
    """Keys are random: neither id nor secret repeats."""
    minted = [mint_key() for _ in range(100)]

    assert len({key.kid for key in minted}) == 100
    assert len({key.secret for key in minted}) == 100


def test_the_text_of_a_key_is_published() -> None:
    """The checksum of a known key never changes, or keys in use would die."""
    found = parse_key(GOLDEN + "4JoLht")

    assert found == ("spk_live_", "0123456789", "A" * 43)


@given(st.integers(0, 10_000), st.sampled_from(ALPHABET))
def test_any_single_typing_error_is_found_by_the_checksum(place: int, letter: str) -> None:
    """A key with one changed character is refused before any look-up."""
    text = mint_key().text
    position = place % len(text)
    changed = text[:position] + letter + text[position + 1 :]

    assert (parse_key(changed) is not None) == (changed == text)


@pytest.mark.parametrize(
    "text",
    ["", "spk_live_", "Bearer", "x" * 77, GOLDEN, GOLDEN + "zzzzzz", GOLDEN + "4JoLht\n",
     (GOLDEN + "4JoLht").upper(), "spx_live_" + GOLDEN[9:] + "4JoLht", "\x00" * 77, "é" * 77],
)  # fmt: skip
def test_junk_is_no_key(text: str) -> None:
    """What only resembles a key is None, never an exception."""
    assert parse_key(text) is None


def test_an_unknown_prefix_is_not_minted() -> None:
    """A misspelt kind of key is refused."""
    with pytest.raises(ValueError, match="spk_live_"):
        mint_key("spk_")


def test_the_digest_is_hmac_sha256_under_the_pepper() -> None:
    """What is stored is the published function, and depends on the pepper."""
    expected = "5167dd15d18166a9dd6caa3522f7026f13d2f82c052bb245c9f3366588205222"

    assert expected == digest(PEPPER, "a")
    assert expected != digest(b"x" * 32, "a")


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER  {}", "{}", " {} "])
def test_every_form_of_header_is_understood(form: str) -> None:
    """``Authorization: Bearer`` and the bare ``X-Api-Key`` value carry the same key."""
    minted = mint_key()
    keyring = ring(entry(minted, owner="ann", scopes=("*",)))

    principal = keyring.authenticate(form.format(minted.text).encode(), "127.0.0.1", NOW)

    assert (minted.kid, "ann", ("*",), "live") == (
        principal.kid, principal.owner, principal.scopes, principal.environment
    )  # fmt: skip


def test_a_proven_header_is_the_same_principal_again() -> None:
    """The second request with the same header costs one look-up."""
    minted = mint_key()
    keyring = ring(entry(minted))
    header = b"Bearer " + minted.text.encode()

    first = keyring.authenticate(header, "127.0.0.1", NOW)

    assert first is keyring.authenticate(header, "10.0.0.1", NOW)


def test_the_memory_of_proven_headers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many spellings of a header arrive, the keyring does not grow without end."""
    monkeypatch.setattr(keys, "PRINCIPALS_CACHED_MAX", 4)
    minted = mint_key()
    keyring = ring(entry(minted))

    for spaces in range(12):
        keyring.authenticate(" " * spaces + minted.text, "127.0.0.1", NOW)

    assert len(keyring._proven) <= 4


def _refused(keyring: Keyring, header: object, host: str = "127.0.0.1", now: float = NOW) -> str:
    with pytest.raises(Unauthorized) as refusal:
        keyring.authenticate(header, host, now)  # type: ignore[arg-type]
    return refusal.value.detail


def test_every_refusal_reads_the_same() -> None:
    """Unknown, wrong, expired, revoked, early and foreign keys are told apart by nobody."""
    minted = mint_key()
    other = mint_key()
    stored = entry(minted, expires=NOW)
    refusals = {
        _refused(ring(), minted.text),
        _refused(ring(entry(minted, digest=digest(PEPPER, other.secret))), minted.text),
        _refused(ring(stored), minted.text),
        _refused(ring(entry(minted, revoked=True)), minted.text),
        _refused(ring(entry(minted, not_before=NOW + 1)), minted.text),
        _refused(ring(entry(minted, cidrs=("10.0.0.0/8",))), minted.text),
        _refused(ring(entry(minted, pepper_v=2)), minted.text),
        _refused(ring(entry(minted, kind="control")), minted.text),
        _refused(ring(entry(minted, environment="test")), minted.text),
        _refused(ring(stored), None),
        _refused(ring(stored), b""),
        _refused(ring(stored), b"\xff" * 77),
        _refused(ring(stored), "x" * 10_000),
    }

    assert {Unauthorized().detail} == refusals


def test_time_and_address_are_checked_even_of_a_proven_header() -> None:
    """A header that was proven once is still refused after expiry, and from elsewhere."""
    minted = mint_key()
    keyring = ring(entry(minted, expires=NOW + 10, cidrs=("127.0.0.0/8",)))
    keyring.authenticate(minted.text, "127.0.0.1", NOW)

    assert _refused(keyring, minted.text, now=NOW + 10)
    assert _refused(keyring, minted.text, host="10.0.0.1")


def test_a_revoked_key_is_refused_by_the_next_generation() -> None:
    """Nothing of what one generation proved is believed by the next."""
    minted = mint_key()
    ring(entry(minted)).authenticate(minted.text, "127.0.0.1", NOW)

    assert _refused(ring(entry(minted, revoked=True), generation=2), minted.text)


@pytest.mark.parametrize(
    ("host", "inside"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.0.0.1", False), ("", False),
     ("not-an-address", False), ("::1", False)],
)  # fmt: skip
def test_networks_unwrap_mapped_addresses(host: str, inside: bool) -> None:
    """An IPv4 caller is the same caller behind an IPv6 socket."""
    keyring = ring(entry(minted := mint_key(), cidrs=("10.0.0.0/8",)))
    networks = keyring._prove(minted.text).networks

    assert inside == inside_networks(networks, host)


def test_a_keyring_survives_the_wire() -> None:
    """Encoded and decoded it authenticates the same keys, and is the same bytes."""
    minted = mint_key()
    stored = entry(minted, owner="ann", scopes=("User:*:read",), expires=NOW + 1, cidrs=("::/0",))
    keyring = ring(stored, entry(mint_key()), generation=7)

    again = Keyring.decode(keyring.encode())

    assert again.generation == 7
    assert len(again) == 2
    assert keyring.encode() == again.encode()
    assert again.authenticate(minted.text, "::1", NOW).owner == "ann"


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("*", Scope("*", "*", "*", "*", False)),
        ("User", Scope("User", "*", "*", "*", False)),
        ("User@2:get_user:read", Scope("User", "2", "get_user", "read", False)),
        ("!User:*:write", Scope("User", "*", "*", "write", True)),
        ("*:*:read", Scope("*", "*", "*", "read", False)),
    ],
)
def test_a_scope_is_taken_apart(text: str, scope: Scope) -> None:
    """Parts that are left out on the right mean any."""
    assert scope == parse_scope(text)


@pytest.mark.parametrize(
    "text", ["", "!", "User:", "User:get:delete", "a b", "User@0", "*:*:*:*", "User@v2", "Ü"]
)
def test_a_malformed_scope_is_refused(text: str) -> None:
    """What is not a scope is never read as a wide one."""
    with pytest.raises(ScopeMalformed):
        parse_scope(text)


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ([], False),
        (["*"], True),
        (["*:*:read"], False),
        (["User:*:write"], True),
        (["User@2"], True),
        (["User@1"], False),
        (["Order"], False),
        (["User:insert_user"], True),
        (["*", "!User:insert_user"], False),
        (["!User:insert_user", "*"], False),
        (["*", "!User@1"], True),
        (["!Order"], False),
    ],
)
def test_a_scope_allows_only_what_it_names(scopes: list[str], allowed: bool) -> None:
    """Default none, any allowing scope suffices, and one denial wins wherever it stands."""
    assert allowed == scope_allows(scopes, "User", 2, "insert_user", "write")
    principal = Principal("kid", "ann", tuple(scopes), "live")
    assert allowed == principal.may("User", 2, "insert_user", "write")
    assert allowed == principal.may("User", 2, "insert_user", "write")


def test_the_named_scope_is_enough() -> None:
    """The scope that a 403 names would have allowed the call."""
    scope = required_scope("User", 2, "get_user", "read")

    assert scope == "User@2:get_user:read"
    assert scope_allows([scope], "User", 2, "get_user", "read")


def test_decisions_are_remembered_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that callers invent do not fill the memory."""
    monkeypatch.setattr(keys, "DECISIONS_CACHED_MAX", 4)
    principal = Principal("kid", "ann", ("*",), "live")

    for version in range(20):
        principal.may("User", version, "get_user", "read")

    assert len(principal._decisions) <= 4


def test_a_header_without_scheme_is_the_key() -> None:
    """``X-Api-Key`` needs no scheme."""
    assert key_of_header(" abc ") == "abc"
