"""Making, pinning, rotating and revoking API keys.

A secret exists in memory only, between minting and the one answer that shows it. Every change
raises the keyring's generation and leaves an outbox row, so that fronts and nodes learn of a
revocation within seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network

from django.db import transaction
from django.utils import timezone

from dispatcher_site.registry.services.counters import keyring_generation, raise_keyring
from dispatcher_site.registry.services.row_filters import checked_filter
from dispatcher_site.registry.services.versions import version_book
from dispatcher_site.trust import audit
from dispatcher_site.trust.actors import Actor
from dispatcher_site.trust.models import ApiKey, live_keys
from dispatcher_site.trust.peppers import newest_pepper, peppers
from modeldefs.wire.keys import PREFIXES, KeyEntry, Keyring, digest, mint_key, parse_scope
from modeldefs.wire.problems import Conflict, InputError, InvalidRequest, NotFound
from modeldefs.wire.quotas import KeyLimits, LimitsMalformed, checked_limits
from modeldefs.wire.versions import NO_BOOK, PinMalformed, VersionWord, pin_text, read_pin

LIFETIME_DEFAULT = timedelta(days=90)
OVERLAP_DEFAULT = timedelta(days=7)
LAST_USED_WRITTEN_EVERY = timedelta(minutes=1)
SCOPES_MAX = 100
CIDRS_MAX = 100


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A stored key and its text, which is not to be had a second time."""

    key: ApiKey
    text: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may use, as somebody asks for it; None is no limit, or the default."""

    rate: int | None = None
    window_s: int | None = None
    burst: int | None = None
    concurrency: int | None = None

    def checked(self) -> KeyLimits | None:
        """Return what the data path is told.

        Raises:
            LimitsMalformed: They make no sense.
        """
        return checked_limits(**asdict(self))


NO_LIMITS = Limits()


def limits_of(key: ApiKey) -> Limits:
    """Return the limits of a stored key."""
    return Limits(key.rate, key.window_s, key.burst, key.concurrency)


def _checked(
    scopes: Sequence[str], cidrs: Sequence[str], limits: Limits = NO_LIMITS, kind: str = "data"
) -> None:
    errors = []
    try:
        if limits.checked() is not None and kind != "data":
            raise LimitsMalformed("kind", "limits are for data keys: the control API has its own")
    except LimitsMalformed as wrong:
        errors.append(InputError("out-of-range", str(wrong), parameter=wrong.member))
    if len(scopes) > SCOPES_MAX or len(cidrs) > CIDRS_MAX:
        errors.append(InputError("out-of-range", f"at most {SCOPES_MAX} scopes or networks"))
    for scope in scopes:
        try:
            parse_scope(scope)
        except ValueError as wrong:
            errors.append(InputError("malformed-scope", str(wrong), parameter="scopes"))
    for cidr in cidrs:
        try:
            ip_network(cidr)
        except ValueError as wrong:
            errors.append(InputError("malformed-network", str(wrong), parameter="cidrs"))
    if errors:
        raise InvalidRequest(errors=errors)


def _facts(key: ApiKey) -> dict[str, object]:
    return {
        "kid": key.kid,
        "name": key.name,
        "owner": key.owner,
        "kind": key.kind,
        "scopes": key.scopes,
        "cidrs": key.cidrs,
        "row_filter": key.row_filter,
        "limits": asdict(limits_of(key)),
        "pin": key.pin,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }


def _mint(*, prefix: str, **members: object) -> CreatedKey:
    kind, environment = PREFIXES[prefix]
    minted = mint_key(prefix)
    version, pepper = newest_pepper()
    key = ApiKey(
        kid=minted.kid,
        prefix=prefix,
        kind=kind,
        environment=environment,
        digest=digest(pepper, minted.secret),
        pepper_v=version,
        **members,
    )
    key.save(force_insert=True)
    return CreatedKey(key, minted.text)


@transaction.atomic
def create_key(
    *,
    actor: Actor,
    owner: str,
    scopes: Sequence[str],
    name: str = "",
    prefix: str = "spk_live_",
    cidrs: Sequence[str] = (),
    expires_at: datetime | None = None,
    never_expires: bool = False,
    limits: Limits = NO_LIMITS,
    row_filter: Mapping[str, str] | None = None,
    pin: str | None = None,
) -> CreatedKey:
    """Create a key; its text is in the answer and nowhere else.

    Args:
        limits: How often it may call; as often as it likes unless given.
        row_filter: By filter field the value that rows must have for this key to see them.
        expires_at: 90 days from now unless given; None with ``never_expires`` for no end.
        pin: What versions it means by none; what is newest now unless given.

    Raises:
        InvalidRequest: A scope, network, prefix, limit, expiry, filter or pin makes no sense.
    """
    if prefix not in PREFIXES or PREFIXES[prefix][0] == "join":
        raise InvalidRequest(errors=[InputError("wrong-type", "unknown kind", parameter="kind")])
    is_data = PREFIXES[prefix][0] == ApiKey.Kind.DATA
    _checked(scopes, cidrs, limits, PREFIXES[prefix][0])
    chosen = checked_filter(row_filter or {}, kind=PREFIXES[prefix][0])
    now = timezone.now()
    if expires_at is None and not never_expires:
        expires_at = now + LIFETIME_DEFAULT
    if expires_at is not None and expires_at <= now:
        error = InputError("out-of-range", "it lies in the past", parameter="expires_at")
        raise InvalidRequest(errors=[error])
    created = _mint(
        prefix=prefix,
        name=name,
        owner=owner,
        scopes=list(scopes),
        cidrs=list(cidrs),
        row_filter=chosen,
        expires_at=expires_at,
        created_by=str(actor)[:150],
        pin=pin_text(now if pin is None else _read_pin(pin)) if is_data else "",
        **asdict(limits),
    )
    audit.record(
        actor=actor, action="key.create", target=created.key.kid, after=_facts(created.key)
    )
    raise_keyring()
    return created


def _locked(kid: str) -> ApiKey:
    try:
        return ApiKey.objects.select_for_update().get(kid=kid)
    except ApiKey.DoesNotExist:
        raise NotFound(f"There is no key {kid!r}.") from None


def _changed(
    action: str,
    *,
    actor: Actor,
    kid: str,
    before: dict[str, object],
    after: ApiKey,
    reason: str,
) -> None:
    """Write down a change of a key, and have every site read the keys anew."""
    audit.record(
        actor=actor,
        action=action,
        target=kid,
        before=before,
        after=_facts(after),
        reason=reason,
    )
    raise_keyring()


@transaction.atomic
def rotate_key(
    *, actor: Actor, kid: str, overlap: timedelta = OVERLAP_DEFAULT, reason: str = ""
) -> CreatedKey:
    """Create a successor with the same rights; the old key lives on for the overlap.

    Raises:
        NotFound: No such key.
        Conflict: The key is revoked.
    """
    old = _locked(kid)
    if old.revoked_at is not None:
        raise Conflict(f"Key {kid} is revoked: create a new one.")
    now = timezone.now()
    lifetime = old.expires_at - old.created if old.expires_at else None
    created = _mint(
        prefix=old.prefix,
        name=old.name,
        owner=old.owner,
        scopes=old.scopes,
        cidrs=old.cidrs,
        row_filter=old.row_filter,
        pin=old.pin,
        expires_at=now + lifetime if lifetime else None,
        rotated_from=old,
        created_by=str(actor)[:150],
        **asdict(limits_of(old)),
    )
    before = _facts(old)
    end = now + overlap
    old.expires_at = min(old.expires_at, end) if old.expires_at else end
    old.save(update_fields=["expires_at"])
    _changed("key.rotate", actor=actor, kid=kid, before=before, after=created.key, reason=reason)
    return created


@transaction.atomic
def limit_key(*, actor: Actor, kid: str, limits: Limits, reason: str = "") -> ApiKey:
    """Replace all limits of a key, everywhere within five seconds.

    Raises:
        NotFound: No such key.
        Conflict: The key is revoked.
        InvalidRequest: The limits make no sense.
    """
    key = _locked(kid)
    if key.revoked_at is not None:
        raise Conflict(f"Key {kid} is revoked.")
    _checked((), (), limits, key.kind)
    before = _facts(key)
    for name, value in asdict(limits).items():
        setattr(key, name, value)
    key.save(update_fields=list(asdict(limits)))
    _changed("key.limit", actor=actor, kid=kid, before=before, after=key, reason=reason)
    return key


def _read_pin(text: str) -> VersionWord | None:
    try:
        return read_pin(text)
    except PinMalformed as wrong:
        error = InputError("wrong-type", str(wrong), parameter="pin")
        raise InvalidRequest(errors=[error]) from None


@transaction.atomic
def pin_key(*, actor: Actor, kid: str, pin: str, reason: str = "") -> ApiKey:
    """Replace what versions a data key means by none, everywhere within five seconds.

    Args:
        pin: ``newest``, a number, a day or a moment.

    Raises:
        NotFound: No such key.
        Conflict: The key is revoked, or for the control API, which has no versions.
        InvalidRequest: The pin is none.
    """
    key = _locked(kid)
    if key.revoked_at is not None or key.kind != ApiKey.Kind.DATA:
        raise Conflict(f"Key {kid} is {'revoked' if key.revoked_at else 'no data key'}.")
    before = _facts(key)
    key.pin = pin_text(_read_pin(pin))
    key.save(update_fields=["pin"])
    _changed("key.pin", actor=actor, kid=kid, before=before, after=key, reason=reason)
    return key


@transaction.atomic
def revoke_key(*, actor: Actor, kid: str, reason: str = "") -> ApiKey:
    """Refuse the key everywhere within five seconds. Revoking it again changes nothing.

    Raises:
        NotFound: No such key.
    """
    key = _locked(kid)
    if key.revoked_at is not None:
        return key
    before = _facts(key)
    key.revoked_at = timezone.now()
    key.save(update_fields=["revoked_at"])
    _changed("key.revoke", actor=actor, kid=kid, before=before, after=key, reason=reason)
    return key


def note_key_used(*, kid: str, ip: str) -> None:
    """Remember when and from where a key was last used, written once a minute at most."""
    note_keys_used({kid: (timezone.now(), ip)})


@transaction.atomic
def note_keys_used(uses: Mapping[str, tuple[datetime, str]]) -> None:
    """Remember when and from where keys were last used, each written once a minute at most.

    Who else is writing down a key at this moment is left to it.
    """
    keys = ApiKey.objects.select_for_update(skip_locked=True).filter(kid__in=list(uses))
    late = []
    for key in keys:
        at, ip = uses[key.kid]
        if key.last_used_at is None or at - key.last_used_at >= LAST_USED_WRITTEN_EVERY:
            key.last_used_at, key.last_used_from = at, ip or None
            late.append(key)
    ApiKey.objects.bulk_update(late, ["last_used_at", "last_used_from"], batch_size=500)


def key_entry(key: ApiKey) -> KeyEntry:
    """Return what a keyring knows of a stored key."""
    return KeyEntry(
        kid=key.kid,
        digest=key.digest,
        pepper_v=key.pepper_v,
        owner=key.owner,
        kind=key.kind,
        environment=key.environment,
        scopes=tuple(key.scopes),
        not_before=key.not_before.timestamp() if key.not_before else 0.0,
        expires=key.expires_at.timestamp() if key.expires_at else None,
        revoked=key.revoked_at is not None,
        cidrs=tuple(key.cidrs),
        limits=limits_of(key).checked(),
        row_filter=key.row_filter or None,
        pin=key.pin,
    )


@transaction.atomic
def keyring(*, kind: str = ApiKey.Kind.DATA) -> Keyring:
    """Return the current generation of all live keys of one kind.

    Data keys and control keys are never in one keyring: a key for the one opens nothing else.
    """
    # The generation first: keys that change after it was read make a newer one anyway.
    generation = keyring_generation()
    entries = [key_entry(key) for key in live_keys([kind])]
    book = version_book() if kind == ApiKey.Kind.DATA else NO_BOOK
    return Keyring(entries, peppers(), generation=generation, book=book)
