"""A front whose registry cannot be read takes keys for a while only."""

from __future__ import annotations

import asyncio

import pytest

from dispatcher_site.gateway.routing_state import RoutingKeeper
from dispatcher_site.registry.reading import RoutingSnapshot
from modeldefs.wire.keys import KeyEntry, Keyring, digest, mint_key
from modeldefs.wire.problems import ShardUnavailable, Unauthorized

MINTED = mint_key()
PEPPER = b"p" * 32
RING = Keyring(
    [KeyEntry(kid=MINTED.kid, digest=digest(PEPPER, MINTED.secret), scopes=("*",))], {1: PEPPER}
)


class Registry:
    """A registry that can be read, or not, and a clock."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.generation = 1
        self.is_down = False
        self.keeper = RoutingKeeper(
            on_change=lambda state: None,
            keys_age_s_max=60,
            clock=lambda: self.now,
            read=self._read,
        )

    def _read(self, known: int) -> RoutingSnapshot | None:
        if self.is_down:
            raise OSError("gone")
        if known == self.generation:
            return None
        return RoutingSnapshot(
            generation=self.generation, epoch=1, dispatcher="d", ranges=(), nodes={}, keyring=RING
        )

    def refresh(self) -> None:
        """Read the registry as the keeper does."""

        async def read() -> None:
            await self.keeper.refresh_soon()

        asyncio.run(read())
        self.keeper.forget_old_keys()

    def lets_in(self, text: str = MINTED.text) -> bool:
        """Is the key taken?"""
        try:
            self.keeper.state.keyring.authenticate(text, "127.0.0.1", 0.0)
        except ShardUnavailable:
            return False
        return True


def test_old_keys_are_taken_for_a_while_and_then_none(caplog: pytest.LogCaptureFixture) -> None:
    """Up to the age that is set the last keyring is in force, map and all; after it everybody is
    503 and not 401, the log says so once, and the first reading, though of nothing new, mends."""
    registry = Registry()
    assert not registry.lets_in()  # never read
    registry.refresh()
    registry.is_down = True
    registry.now += 60
    registry.refresh()
    assert registry.lets_in()

    registry.now += 1
    registry.refresh()
    registry.refresh()
    assert not registry.lets_in()
    assert not registry.lets_in("nobody's")
    assert 1 == caplog.text.count("routing.keys-too-old")
    assert 1 == registry.keeper.state.generation

    registry.is_down = False
    registry.refresh()
    assert registry.lets_in()
    with pytest.raises(Unauthorized):
        registry.lets_in("nobody's")


def test_a_change_made_meanwhile_is_taken_at_once() -> None:
    """When the registry is back with a newer generation that one is in force."""
    registry = Registry()
    registry.refresh()
    registry.is_down = True
    registry.now += 61
    registry.refresh()
    assert not registry.lets_in()

    registry.is_down, registry.generation = False, 2
    registry.refresh()

    assert registry.lets_in()
    assert 2 == registry.keeper.state.generation
