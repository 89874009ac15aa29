"""Scopes: ``model@version:endpoint:verb``, what a key may do.

``*`` stands for any value of a part, parts left out on the right mean any, a leading ``!`` denies
and wins. A key without scopes may do nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

READ = "read"
WRITE = "write"
VERBS = (READ, WRITE)
_SCOPE = re.compile(
    r"(?P<deny>!?)(?P<model>\*|[A-Za-z_][A-Za-z0-9_]*)(?:@(?P<version>\*|[1-9][0-9]{0,5}))?"
    r"(?::(?P<endpoint>\*|[A-Za-z_][A-Za-z0-9_-]*))?(?::(?P<verb>\*|read|write))?"
)


class ScopeMalformed(ValueError):
    """A scope reads model@version:endpoint:verb; each part may be *, the verb is read or write."""


class Scope(NamedTuple):
    """One scope, taken apart."""

    model: str
    version: str
    endpoint: str
    verb: str
    denies: bool

    def matches(self, model: str, version: str, endpoint: str, verb: str) -> bool:
        """Say whether every part is this one or any."""
        return (
            self.model in ("*", model)
            and self.version in ("*", version)
            and self.endpoint in ("*", endpoint)
            and self.verb in ("*", verb)
        )


@lru_cache(maxsize=4096)
def parse_scope(text: str) -> Scope:
    """Return the scope that a text describes; parts left out on the right mean any.

    Raises:
        ScopeMalformed: The text is not a scope.
    """
    found = _SCOPE.fullmatch(text)
    if found is None:
        raise ScopeMalformed(f"{text!r}: {ScopeMalformed.__doc__}")
    return Scope(
        model=found["model"],
        version=found["version"] or "*",
        endpoint=found["endpoint"] or "*",
        verb=found["verb"] or "*",
        denies=bool(found["deny"]),
    )


def scope_allows(
    scopes: Iterable[str], model: str, version: int | str, endpoint: str, verb: str
) -> bool:
    """Say whether the scopes allow the call: one must allow it and none may deny it."""
    allowed = False
    for text in scopes:
        scope = parse_scope(text)
        if scope.matches(model, str(version), endpoint, verb):
            if scope.denies:
                return False
            allowed = True
    return allowed


def required_scope(model: str, version: int | str, endpoint: str, verb: str) -> str:
    """Return the narrowest scope that would allow the call, to name in a 403."""
    return f"{model}@{version}:{endpoint}:{verb}"
