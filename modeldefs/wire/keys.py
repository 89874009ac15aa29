"""API keys: their text, what is stored of them, and who a header belongs to.

A key is ``<prefix><kid: 10>_<secret: 43><crc: 6>`` in base62, for example ``spk_live_...``. The
text is shown once; what is kept is its ``kid`` and an HMAC of its secret under a pepper that no
database holds. A ``Keyring`` is one immutable generation of all live keys: dispatcher and nodes
authenticate against it without asking a database, and a revoked key is one that the next
generation leaves out or marks. No slow hash: the secret has 256 random bits.

For a key its holder may get a short-lived, signed capability (``capabilities``), which a keyring
takes in its place for as long as the key is good.

What a key may do its scopes say: ``wire.scopes``.

Pure: no framework, no clock, no I/O; time is passed in.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from modeldefs.wire.problems import Unauthorized
from modeldefs.wire.quotas import KeyLimits
from modeldefs.wire.scopes import READ as READ
from modeldefs.wire.scopes import VERBS as VERBS
from modeldefs.wire.scopes import WRITE as WRITE
from modeldefs.wire.scopes import Scope as Scope
from modeldefs.wire.scopes import ScopeMalformed as ScopeMalformed
from modeldefs.wire.scopes import parse_scope as parse_scope
from modeldefs.wire.scopes import required_scope as required_scope
from modeldefs.wire.scopes import scope_allows as scope_allows
from modeldefs.wire.versions import NO_BOOK, VersionBook

if TYPE_CHECKING:
    from modeldefs.wire.capabilities import CapabilityReader

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KID_LENGTH = 10
SECRET_LENGTH = 43
CRC_LENGTH = 6
KEY_BYTES_MAX = 96

PREFIXES: Mapping[str, tuple[str, str]] = {
    "spk_live_": ("data", "live"),
    "spk_test_": ("data", "test"),
    "spa_": ("control", "live"),
    "spj_": ("join", "live"),
}
"""Prefix -> (kind, environment)."""

SCANNER_PATTERN = r"\b(?:spk_(?:live|test)|spa|spj)_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}\b"
"""What a secret scanner looks for; the last six characters are a CRC32 that removes doubt."""

PRINCIPALS_CACHED_MAX = 4096
DECISIONS_CACHED_MAX = 1024

_SHAPE = re.compile(
    r"(spk_live_|spk_test_|spa_|spj_)([0-9A-Za-z]{10})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})"
)
# Compared against when the kid is unknown, so that both refusals cost the same.
_NO_DIGEST = "0" * 64

Network: TypeAlias = IPv4Network | IPv6Network


class ParsedKey(NamedTuple):
    """The parts of a key whose shape and checksum are right."""

    prefix: str
    kid: str
    secret: str

    @property
    def kind(self) -> str:
        """Return what the key is for: data, control or join."""
        return PREFIXES[self.prefix][0]

    @property
    def environment(self) -> str:
        """Return live or test."""
        return PREFIXES[self.prefix][1]


class MintedKey(NamedTuple):
    """A new key: the text to show once, and its two parts."""

    text: str
    kid: str
    secret: str


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, rest = divmod(number, 62)
        digits.append(ALPHABET[rest])
    return "".join(reversed(digits))


def _crc(text: str) -> str:
    return _base62(binascii.crc32(text.encode("ascii")), CRC_LENGTH)


def mint_key(prefix: str = "spk_live_") -> MintedKey:
    """Return a new key with 256 random bits; only its digest may be stored."""
    if prefix not in PREFIXES:
        raise ValueError(f"a key prefix is one of {', '.join(PREFIXES)}, not {prefix!r}")
    kid = "".join(secrets.choice(ALPHABET) for _ in range(KID_LENGTH))
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    body = f"{prefix}{kid}_{secret}"
    return MintedKey(body + _crc(body), kid, secret)


def parse_key(text: str) -> ParsedKey | None:
    """Return the parts of a key, or None for a wrong shape or checksum: junk meets no database."""
    found = _SHAPE.fullmatch(text)
    if found is None or _crc(text[:-CRC_LENGTH]) != found[4]:
        return None
    return ParsedKey(found[1], found[2], found[3])


def digest(pepper: bytes, secret: str) -> str:
    """Return what is stored of a secret: its HMAC-SHA256 under the pepper, in hex."""
    return hmac.new(pepper, secret.encode("ascii"), hashlib.sha256).hexdigest()


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a keyring knows of one key: never the secret."""

    kid: str
    digest: str
    pepper_v: int = 1
    owner: str = ""
    kind: str = "data"
    environment: str = "live"
    scopes: tuple[str, ...] = ()
    not_before: float = 0.0
    expires: float | None = None
    revoked: bool = False
    cidrs: tuple[str, ...] = ()
    limits: KeyLimits | None = None
    row_filter: dict[str, str] | None = None
    pin: str = ""  # what the key means by no version at all: wire.versions


class KeyringDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A keyring as JSON: what is sealed and sent to the nodes."""

    generation: int
    pepper: dict[str, str]
    keys: tuple[KeyEntry, ...]
    book: VersionBook = NO_BOOK


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a key that was proven, and what it may do."""

    kid: str
    owner: str
    scopes: tuple[str, ...]
    environment: str
    kind: str = "data"
    limits: KeyLimits | None = None
    within: tuple[str, ...] | None = None  # of a capability: scopes that narrow those of the key
    row_filter: dict[str, str] | None = None  # by field the one value its rows must have
    # Whose a cursor or an idempotency key is: what one row filter has shown is not for another.
    identity: str = field(init=False, default="")
    pin: str = ""
    # What it may read without a closer look: kept by kit.served_versions.
    plain: set[object] = field(default_factory=set, repr=False, compare=False, hash=False)
    _decisions: dict[tuple[str, int | str, str, str], bool] = field(
        default_factory=dict, repr=False, compare=False, hash=False
    )

    def __post_init__(self) -> None:
        """Make the identity, once for all requests."""
        identity = self.owner or self.kid
        if self.row_filter is not None:
            identity += "\0" + json.dumps(self.row_filter, sort_keys=True)
        object.__setattr__(self, "identity", identity)

    def may(self, model: str, version: int | str, endpoint: str, verb: str) -> bool:
        """Say whether the scopes allow the call; decided once for each distinct call."""
        call = (model, version, endpoint, verb)
        known = self._decisions.get(call)
        if known is None:
            known = scope_allows(self.scopes, model, version, endpoint, verb) and (
                self.within is None or scope_allows(self.within, model, version, endpoint, verb)
            )
            # Names and versions may come from callers: forget rather than grow.
            if len(self._decisions) >= DECISIONS_CACHED_MAX:
                self._decisions.clear()
            self._decisions[call] = known
        return known


class Proven(NamedTuple):
    """A caller who is known, and when and from where that holds."""

    principal: Principal
    not_before: float
    expires: float
    networks: tuple[Network, ...]


def key_of_header(header: str) -> str:
    """Return the key inside an ``Authorization: Bearer`` or ``X-Api-Key`` value."""
    scheme, _, rest = header.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else header.strip()


def inside_networks(networks: Sequence[Network], client_host: str) -> bool:
    """Say whether the address is in one of the networks; mapped IPv6 counts as its IPv4."""
    try:
        address = ip_address(client_host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


class Keyring:
    """One generation of all keys. Never edited: a change makes the next generation."""

    def __init__(
        self,
        entries: Iterable[KeyEntry] = (),
        peppers: Mapping[int, bytes] | None = None,
        *,
        generation: int = 0,
        capabilities: CapabilityReader | None = None,
        book: VersionBook = NO_BOOK,
    ) -> None:
        self.generation = generation
        self.book = book  # what is known of versions: where keys are known, so is that
        self._capabilities = capabilities
        self._entries = {entry.kid: entry for entry in entries}
        self._peppers = dict(peppers or {})
        self._proven: dict[bytes | str, Proven] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def kids(self) -> frozenset[str]:
        """The ids of all keys."""
        return frozenset(self._entries)

    @classmethod
    def decode(cls, document: bytes | str) -> Keyring:
        """Return the keyring that ``encode`` wrote.

        Raises:
            msgspec.ValidationError: The document is not a keyring.
        """
        known = msgspec.json.decode(document, type=KeyringDocument)
        peppers = {int(version): bytes.fromhex(pepper) for version, pepper in known.pepper.items()}
        return cls(known.keys, peppers, generation=known.generation, book=known.book)

    def accepting(self, capabilities: CapabilityReader) -> Keyring:
        """Return a keyring of the same keys that takes capabilities for them too."""
        return Keyring(
            self._entries.values(),
            self._peppers,
            generation=self.generation,
            capabilities=capabilities,
            book=self.book,
        )

    def entry(self, kid: str) -> KeyEntry | None:
        """Return what is known of a key; None if it is none of these."""
        return self._entries.get(kid)

    def encode(self) -> bytes:
        """Return the keyring as JSON, same bytes for same keys. Holds the peppers: seal it."""
        return msgspec.json.encode(
            KeyringDocument(
                generation=self.generation,
                pepper={str(v): self._peppers[v].hex() for v in sorted(self._peppers)},
                keys=tuple(self._entries[kid] for kid in sorted(self._entries)),
                book=self.book,
            )
        )

    def authenticate(self, header: bytes | str | None, client_host: str, now: float) -> Principal:
        """Return who sent this ``Authorization`` or ``X-Api-Key`` value.

        A header proven once is looked up by its bytes from then on; what can change under one
        generation (time, the caller's address) is checked every time.

        Args:
            header: The raw header value, None when it was absent.
            client_host: The caller's address, for keys bound to networks.
            now: Unix seconds.

        Raises:
            Unauthorized: One refusal for unknown, wrong, expired, revoked and foreign.
        """
        if not header:
            raise Unauthorized
        known = self._proven.get(header)
        if known is None:
            known = self._prove(header)
            if len(self._proven) >= PRINCIPALS_CACHED_MAX:
                self._proven.clear()
            self._proven[header] = known
        if not known.not_before <= now < known.expires:
            raise Unauthorized
        if known.networks and not inside_networks(known.networks, client_host):
            raise Unauthorized
        return known.principal

    def _prove(self, header: bytes | str) -> Proven:
        text = header.decode("latin-1") if isinstance(header, bytes) else header
        if len(header) > KEY_BYTES_MAX:
            if self._capabilities is None:
                raise Unauthorized
            return self._capabilities.prove(key_of_header(text), self._entries, self.generation)
        parsed = parse_key(key_of_header(text))
        if parsed is None:
            raise Unauthorized
        entry = self._entries.get(parsed.kid)
        pepper = self._peppers.get(entry.pepper_v if entry else 1, b"")
        told = digest(pepper, parsed.secret)
        same = hmac.compare_digest(told, entry.digest if entry else _NO_DIGEST)
        if entry is None or not same or not pepper or entry.revoked:
            raise Unauthorized
        if (entry.kind, entry.environment) != (parsed.kind, parsed.environment):
            raise Unauthorized
        return proven(entry)


def proven(entry: KeyEntry, within: tuple[str, ...] | None = None) -> Proven:
    """Return what a key lets its caller do, narrowed to some scopes if any are said."""
    principal = Principal(
        entry.kid,
        entry.owner,
        entry.scopes,
        entry.environment,
        entry.kind,
        entry.limits,
        within,
        entry.row_filter,
        entry.pin,
    )
    expires = float("inf") if entry.expires is None else entry.expires
    networks = tuple(ip_network(cidr) for cidr in entry.cidrs)
    return Proven(principal, entry.not_before, expires, networks)
