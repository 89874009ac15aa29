"""Versions of models: deprecating, retiring and reviving them, and who still uses them.

The head of a model is never deprecated. A version is retired only when nobody who may call relies
on it: no live key is pinned to it, and none has got an answer in it lately. Every change reaches
fronts and nodes beside the keys, within seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from dispatcher_site.registry.models import Endpoint, ModelVersion, VersionUse
from dispatcher_site.registry.services.contracts import known_contracts
from dispatcher_site.registry.services.counters import raise_keyring
from dispatcher_site.trust import audit
from dispatcher_site.trust.actors import Actor
from dispatcher_site.trust.models import ApiKey, live_keys
from modeldefs.wire.keys import scope_allows
from modeldefs.wire.problems import Conflict, InputError, InvalidRequest, NotFound
from modeldefs.wire.versions import KnownVersion, VersionBook, number_of, read_pin

LATELY = timedelta(days=7)
CALLERS_NAMED_MAX = 10
State = ModelVersion.State


def version_book() -> VersionBook:
    """Return what fronts and nodes are told of versions and contracts."""
    models: dict[str, list[KnownVersion]] = {}
    for version in ModelVersion.objects.order_by("model_id", "number"):
        models.setdefault(version.model_id, []).append(_known(version))
    return VersionBook({name: tuple(of) for name, of in models.items()}, known_contracts())


def _known(version: ModelVersion) -> KnownVersion:
    return KnownVersion(
        number=version.number,
        since=version.since.timestamp(),
        state=version.state,
        deprecated=version.deprecated_at.timestamp() if version.deprecated_at else None,
        sunset=version.sunset.timestamp() if version.sunset else None,
        notice=version.notice,
    )


def _locked(model: str, number: int) -> ModelVersion:
    found = ModelVersion.objects.select_for_update().select_related("model")
    try:
        version = found.get(model_id=model, number=number)
    except ModelVersion.DoesNotExist:
        raise NotFound(f"There is no version {number} of {model!r}.") from None
    if version.number >= version.model.head:
        raise Conflict(f"{version} is the newest: its callers could not move to another.")
    return version


def _facts(version: ModelVersion) -> dict[str, object]:
    return {
        "state": version.state,
        "since": version.since.isoformat(),
        "deprecated_at": version.deprecated_at.isoformat() if version.deprecated_at else None,
        "sunset": version.sunset.isoformat() if version.sunset else None,
        "notice": version.notice,
    }


def _changed(
    action: str, actor: Actor, version: ModelVersion, before: dict[str, object], reason: str
) -> ModelVersion:
    version.save()
    audit.record(
        actor=actor,
        action=action,
        target=str(version),
        before=before,
        after=_facts(version),
        reason=reason,
    )
    raise_keyring()
    return version


@transaction.atomic
def deprecate_version(
    *,
    actor: Actor,
    model: str,
    number: int,
    sunset: datetime | None = None,
    notice: str = "",
    reason: str = "",
) -> ModelVersion:
    """Tell the callers of a version, in each answer, that its end comes.

    Args:
        sunset: When it is to be retired, as clients are told; nothing happens by itself then.
        notice: The address of a page about it.

    Raises:
        NotFound: No such version.
        Conflict: It is the newest, or retired.
        InvalidRequest: The sunset lies in the past, or the address is none.
    """
    version = _locked(model, number)
    if version.state == State.RETIRED:
        raise Conflict(f"{version} is retired.")
    now = timezone.now()
    errors = []
    if sunset is not None and sunset <= now:
        errors.append(InputError("out-of-range", "it lies in the past", parameter="sunset"))
    if notice and not _is_address(notice):
        detail = "is neither a path nor an http address"
        errors.append(InputError("wrong-type", detail, parameter="notice"))
    if errors:
        raise InvalidRequest(errors=errors)
    before = _facts(version)
    version.state = State.DEPRECATED
    version.deprecated_at = version.deprecated_at or now
    version.sunset, version.notice = sunset, notice
    return _changed("version.deprecate", actor, version, before, reason)


def _is_address(text: str) -> bool:
    """Is it safe inside the angle brackets of a Link header?"""
    plain = text.isascii() and text.isprintable() and not set(text) & set('<>" ')
    return plain and len(text) <= 500 and text.startswith(("/", "http://", "https://"))


@transaction.atomic
def retire_version(
    *, actor: Actor, model: str, number: int, reason: str = "", lately: timedelta = LATELY
) -> ModelVersion:
    """Serve a version no more: its callers get 410. Retiring it again changes nothing.

    Raises:
        NotFound: No such version.
        Conflict: It is the newest, or a key is pinned to it or has lately used it.
    """
    version = _locked(model, number)
    if version.state == State.RETIRED:
        return version
    callers = callers_of(version, lately=lately)
    if callers:
        told = dict(list(callers.items())[:CALLERS_NAMED_MAX])
        named = "; ".join(f"{kid} {why}" for kid, why in told.items())
        more = len(callers) - len(told)
        raise Conflict(
            f"{version} is in use by {len(callers)} keys: {named}"
            + (f"; and {more} more" if more > 0 else ""),
            members={"callers": told},
        )
    before = _facts(version)
    version.state = State.RETIRED
    return _changed("version.retire", actor, version, before, reason)


@transaction.atomic
def revive_version(*, actor: Actor, model: str, number: int, reason: str = "") -> ModelVersion:
    """Take back what was said of a version's end: it is served as before.

    Raises:
        NotFound: No such version.
        Conflict: It is the newest.
    """
    version = _locked(model, number)
    if version.state == State.LIVE:
        return version
    before = _facts(version)
    version.state, version.deprecated_at, version.sunset = State.LIVE, None, None
    version.notice = ""
    return _changed("version.revive", actor, version, before, reason)


def callers_of(version: ModelVersion, *, lately: timedelta = LATELY) -> dict[str, str]:
    """Return who relies on a version, and why it is thought so, by key."""
    keys = list(live_keys([ApiKey.Kind.DATA]))
    used = dict(
        VersionUse.objects.filter(
            model=version.model_id,
            number=version.number,
            last_used_at__gt=timezone.now() - lately,
        ).values_list("kid", "last_used_at")
    )
    callers = {key.kid: "is pinned to it" for key in _pinned(version, keys)}
    for key in keys:
        if key.kid in used:
            callers[key.kid] = f"used it at {used[key.kid]:%Y-%m-%d %H:%M} UTC"
    return callers


def _pinned(version: ModelVersion, keys: Iterable[ApiKey]) -> Iterable[ApiKey]:
    """Yield the keys that mean a version by no version, and may call an endpoint of its model."""
    known = [_known(each) for each in ModelVersion.objects.filter(model=version.model_id)]
    endpoints = Endpoint.objects.filter(model=version.model_id, active=True)
    calls = [(e.name, "write" if e.kind == "mutation" else "read") for e in endpoints]
    for key in keys:
        meant = number_of(read_pin(key.pin), known, version.model.head)
        if meant == version.number and any(
            scope_allows(key.scopes, version.model_id, meant, name, verb) for name, verb in calls
        ):
            yield key


def use_key(kid: str, model: str, number: int) -> str:
    """Return one text for a use of a version by a key; ``note_versions_used`` reads it."""
    return f"{kid} {model} {number}"


@transaction.atomic
def note_versions_used(uses: Mapping[str, tuple[datetime, str]]) -> None:
    """Remember when keys last got an answer in an older version.

    Args:
        uses: When, by ``use_key``; from where is not kept.
    """
    rows = []
    for use, (at, _) in sorted(uses.items()):
        kid, model, number = use.split(" ")
        rows.append(VersionUse(kid=kid, model=model, number=int(number), last_used_at=at))
    VersionUse.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["model", "number", "kid"],
        update_fields=["last_used_at"],
        batch_size=500,
    )
