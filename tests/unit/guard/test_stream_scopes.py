"""A node looks at the scopes of the key that a call of its dispatcher names, once more."""

from __future__ import annotations

import pytest

from modeldefs.kit.apps import current_catalog
from modeldefs.wire.keys import KeyEntry, Keyring
from modeldefs.wire.problems import Forbidden, ShardUnavailable
from shardnode.guard.stream_scopes import StreamScopes

READER = KeyEntry(kid="reader0000", digest="", scopes=("User:*:read",))
ALL = KeyEntry(kid="all0000000", digest="", scopes=("*",))


class Rings:
    """Keyrings as a node gets them, or none."""

    def __init__(self, *keys: KeyEntry) -> None:
        self.ring: Keyring | None = Keyring(keys, {})
        self.read = 0
        self.scopes = StreamScopes(self._current)

    def _current(self) -> Keyring:
        self.read += 1
        if self.ring is None:
            raise ShardUnavailable
        return self.ring

    def replace(self, *keys: KeyEntry) -> None:
        """Have another keyring from now on."""
        self.ring = Keyring(keys, {})
        self.scopes.forget()

    def lets(self, kid: str, name: str) -> bool:
        """May the key call the endpoint, as far as the node knows?"""
        try:
            self.scopes.check(kid, current_catalog().endpoints[name])
        except Forbidden:
            return False
        return True


def test_a_key_that_is_known_gets_no_further_than_its_scopes() -> None:
    """Read and write, single and batch; the refusal names the scope."""
    rings = Rings(READER, ALL)
    names = ["get_user", "insert_user", "insert_users"]

    assert [True, False, False] == [rings.lets(READER.kid, name) for name in names]
    assert [True, True, True] == [rings.lets(ALL.kid, name) for name in names]
    with pytest.raises(Forbidden, match="User@1:insert_user:write"):
        rings.scopes.check(READER.kid, current_catalog().endpoints["insert_user"])


def test_what_is_not_known_is_the_dispatchers_to_decide() -> None:
    """A key that may be too new for this keyring, and keys that are too old to say anything."""
    rings = Rings(READER)
    assert rings.lets("newer00000", "insert_user")
    rings.ring = None
    assert rings.lets(READER.kid, "insert_user")
    rings.replace(READER)
    assert not rings.lets(READER.kid, "insert_user")


def test_it_is_decided_once_until_the_keys_change() -> None:
    """Then anew, by the keys of that time."""
    rings = Rings(ALL)
    before = [rings.lets(ALL.kid, "insert_user") for _ in range(3)]
    asked = rings.read
    rings.replace(KeyEntry(kid=ALL.kid, digest="", scopes=("Flight",)))

    assert (before, asked) == ([True] * 3, 1)
    assert not rings.lets(ALL.kid, "insert_user")
