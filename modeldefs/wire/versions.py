"""Versions as they are known everywhere: what lives since when, and what a caller's word means.

The registry says since when each version of a model lives, which are deprecated and which are
retired; fronts and nodes get that beside the keys, as one book. A number names a version of the
endpoint's own model. A day means, for every model, what was newest when it ended (UTC); a moment,
as keys are pinned to, what was newest at that moment. Before a model's first version was there
both mean the first: a caller of then cannot have meant a later one.

Invariant: what a moment of the past means never changes, whatever versions come after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec

LIVE = "live"
DEPRECATED = "deprecated"
RETIRED = "retired"
STATES = (LIVE, DEPRECATED, RETIRED)
NEWEST = ""  # the pin of a key that follows the newest version
NEWEST_WORD = "newest"  # how people say so

CONTRACT_LENGTH = 32
CONTRACT_SHAPE = re.compile(rb"[0-9a-f]{%d}" % CONTRACT_LENGTH)

_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")

VersionWord = int | date | datetime
"""A number, a day, or a moment."""


class VersionMalformed(ValueError):
    """A version is a number such as 2, or a day such as 2026-09-01."""


class PinMalformed(VersionMalformed):
    """A pin is newest, a number, a day such as 2026-09-01, or a moment (2026-09-01T10:00:00Z)."""


class KnownVersion(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """One version of a model, as the registry knows it. Moments are Unix seconds."""

    number: int
    since: float
    state: str = LIVE
    deprecated: float | None = None
    sunset: float | None = None
    notice: str = ""  # where people read about its end


class KnownContracts(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """The contracts of one endpoint in one version: today's, and what breaks of older ones."""

    current: str
    breaks: dict[str, tuple[str, ...]] = {}
    """By older hash what today's contract breaks of it; nothing: it still holds."""


class VersionBook(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the registry knows of versions and contracts, as of one generation of keys."""

    models: dict[str, tuple[KnownVersion, ...]] = {}
    contracts: dict[str, KnownContracts] = {}  # by endpoint@version


NO_BOOK = VersionBook()


def read_version(text: str) -> int | date:
    """Return what a request asks for: a number or a day.

    Raises:
        VersionMalformed: It is neither.
    """
    if _NUMBER.fullmatch(text):
        return int(text)
    if _DAY.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise VersionMalformed(f"{text[:40]!r}: {VersionMalformed.__doc__}")


def read_pin(text: str) -> VersionWord | None:
    """Return what a key is pinned to; None for the newest.

    Raises:
        PinMalformed: It is no pin.
    """
    if text in (NEWEST, NEWEST_WORD):
        return None
    try:
        if _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text)
        return read_version(text)
    except ValueError:
        raise PinMalformed(f"{text[:40]!r}: {PinMalformed.__doc__}") from None


def pin_text(word: VersionWord | None) -> str:
    """Return a pin as it is stored; ``read_pin`` is the inverse."""
    if word is None:
        return NEWEST
    if isinstance(word, datetime):
        return word.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(word)


def moment_of(word: date) -> float:
    """Return the moment that a day or a moment stands for: the end of the day."""
    if isinstance(word, datetime):
        return word.timestamp()
    begins = datetime(word.year, word.month, word.day, tzinfo=UTC)
    try:
        return (begins + timedelta(days=1)).timestamp() - 1e-6
    except OverflowError:  # the last day that there is
        return begins.timestamp()


def newest_at(known: Sequence[KnownVersion], moment: float) -> int | None:
    """Return the version that was newest at a moment; None if none is known at all.

    Args:
        known: The versions of one model, in any order.
        moment: Unix seconds.
    """
    if not known:
        return None
    there = [each.number for each in known if each.since <= moment]
    return max(there) if there else min(each.number for each in known)


def number_of(word: VersionWord | None, known: Sequence[KnownVersion], head: int) -> int:
    """Return the number that a word means for one model.

    Args:
        word: None for the newest.
        known: What the registry knows of the model's versions.
        head: The model's newest version here, which the registry may not know yet.
    """
    if word is None:
        return head
    if isinstance(word, int):
        return word
    found = newest_at(known, moment_of(word))
    return head if found is None else min(found, head)
