"""The ``Prefer`` header (RFC 7240): what a client would like, and what of it is honoured.

A preference that is unknown, or means nothing to an endpoint, is passed over, unless the client
says ``handling=strict``: then it is refused. What was honoured is echoed in
``Preference-Applied``. One is never passed over: a ``tx`` that is not understood, since the client
may have wanted that nothing be written.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modeldefs.kit.endpoints import Endpoint
from modeldefs.wire.problems import InputError, InvalidRequest

HEADER = "Prefer"
COUNTS = ("exact", "estimated")
WAIT = "wait"
WAIT_MAX_S = 25  # so that an answer comes before the longest deadline
_SECONDS = re.compile(r"[0-9]{1,6}")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a token of RFC 9110
_WORD = rf'(?:{_TOKEN}|"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~\x80-\xff])*")'
_PREFERENCE = re.compile(rf"({_TOKEN})(?:[ \t]*=[ \t]*({_WORD})?)?")
_PARAMETER = re.compile(rf"[ \t]*;[ \t]*(?:{_TOKEN}(?:[ \t]*=[ \t]*(?:{_WORD})?)?)?")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a client prefers: values by name in lower case, "" where there is none."""

    values: dict[str, str]
    unread: tuple[str, ...] = ()  # what is no preference at all

    @property
    def is_strict(self) -> bool:
        """Shall what is not honoured be refused?"""
        return self.values.get("handling", "").lower() == "strict"


@dataclass(frozen=True, slots=True)
class Honoured:
    """What of it an endpoint does."""

    applied: bytes = b""  # the value of Preference-Applied
    partial: bool = False
    minimal: bool = False
    rollback: bool = False
    count: str = ""  # "exact" or "estimated"
    wait_s: int = 0


NOTHING = Honoured()


def read_preferences(value: bytes | None) -> Preferences | None:
    """Return the preferences of a header's value, the first of each name; None without one."""
    if value is None:
        return None
    values: dict[str, str] = {}
    unread: list[str] = []
    for element in _elements(value.decode("latin-1")):
        found = _PREFERENCE.match(element)
        if found is None or not _ends_in_parameters(element, found.end()):
            unread.append(element[:100])
            continue
        values.setdefault(found[1].lower(), _unquoted(found[2] or ""))
    return Preferences(values, tuple(unread))


def _elements(text: str) -> Iterator[str]:
    """Yield the elements of a list; a comma in a quoted string separates nothing."""
    start, is_quoted, is_escaped = 0, False, False
    for at, letter in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif is_quoted and letter == "\\":
            is_escaped = True
        elif letter == '"':
            is_quoted = not is_quoted
        elif letter == "," and not is_quoted:
            if element := text[start:at].strip(" \t"):
                yield element
            start = at + 1
    if element := text[start:].strip(" \t"):
        yield element


def _ends_in_parameters(element: str, at: int) -> bool:
    while at < len(element):
        found = _PARAMETER.match(element, at)
        if found is None:
            return False
        at = found.end()
    return True


def _unquoted(word: str) -> str:
    return _ESCAPED.sub(r"\1", word[1:-1]) if word.startswith('"') else word


def honoured(
    preferences: Preferences, endpoint: Endpoint[Any, Any], *, is_export: bool = False
) -> Honoured:
    """Return what of the preferences this endpoint does.

    Raises:
        InvalidRequest: They are to be handled strictly and one is not honoured, or ``tx`` of a
            write is none that is known.
    """
    known = _known(endpoint, is_export=is_export)
    applied: list[str] = []
    refused = list(preferences.unread)
    for name, value in preferences.values.items():
        if value.lower() in known.get(name, ()) or (
            name == WAIT and WAIT in known and _SECONDS.fullmatch(value)
        ):
            applied.append(f"{name}={value.lower()}" if value else name)
        else:
            refused.append(f"{name}={value}" if value else name)
    is_unclear = endpoint.kind == "mutation" and any(_is_about_tx(each) for each in refused)
    if refused and (preferences.is_strict or is_unclear):
        errors = [
            InputError("unsupported-preference", f"{shown!r} is not honoured here", HEADER)
            for shown in refused[:20]
        ]
        raise InvalidRequest(f"{HEADER}: {errors[0].detail}", errors=errors)
    return Honoured(
        ", ".join(applied).encode("ascii"),
        partial="partial" in applied,
        minimal="return=minimal" in applied,
        rollback="tx=rollback" in applied,
        wait_s=min(WAIT_MAX_S, int(preferences.values["wait"])) if _waits(applied) else 0,
        count=next((each for each in COUNTS if f"count={each}" in applied), ""),
    )


def _known(endpoint: Endpoint[Any, Any], *, is_export: bool) -> dict[str, tuple[str, ...]]:
    """Return the values that each preference may have here."""
    known: dict[str, tuple[str, ...]] = {"handling": ("strict", "lenient")}
    if endpoint.kind == "mutation":
        known["return"] = ("minimal", "representation")
        # The items of several shards are not one transaction: what would a dry run of them say?
        known["tx"] = ("commit",) if endpoint.is_many else ("commit", "rollback")
    elif not is_export:
        if endpoint.options.partial:
            known["partial"] = ("",)
        if endpoint.shape == "page":
            known["count"] = (*COUNTS, "none")
        if endpoint.shape in ("page", "single"):
            known[WAIT] = ("5",)  # or any other number of seconds
    return known


def _waits(applied: list[str]) -> bool:
    return any(each.startswith("wait=") for each in applied)


def preference_examples(endpoint: Endpoint[Any, Any]) -> list[str]:
    """Return every preference that an endpoint honours, as it is written."""
    known = _known(endpoint, is_export=False)
    return [f"{n}={value}" if value else n for n, values in known.items() for value in values]


def _is_about_tx(refused: str) -> bool:
    return re.match(r"tx(?![!#$%&'*+.^_`|~0-9A-Za-z-])", refused, re.IGNORECASE) is not None
