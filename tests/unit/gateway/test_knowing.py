"""What a front knows of the registry: nothing at first, then the latest of what came in."""

from __future__ import annotations

import asyncio
import threading

import pytest
import uvloop

from dispatcher_site.gateway import routing_state
from dispatcher_site.gateway.handler import FrontHandler
from dispatcher_site.gateway.routing_state import RoutingKeeper, RoutingState
from dispatcher_site.registry.reading import RoutingSnapshot
from modeldefs.wire.keys import Keyring, mint_key
from modeldefs.wire.problems import ShardUnavailable, Unauthorized


def _snapshot(generation: int) -> RoutingSnapshot:
    return RoutingSnapshot(
        generation=generation, epoch=0, dispatcher="d", ranges=(), nodes={}, keyring=Keyring()
    )


def test_who_may_call_is_not_refused_before_it_is_known() -> None:
    """A worker that starts while the registry is away says 503 and never 401: the key may be
    right. As soon as it knows the keys, a wrong one is 401."""
    handler = FrontHandler()
    header = f"Bearer {mint_key().text}".encode()
    for given in (None, b"junk", header):
        with pytest.raises(ShardUnavailable) as refused:
            handler._authenticate(given, "")
        assert refused.value.document()["retryable"] is True
    handler._keeper.state = RoutingState(0, "d", None, {}, Keyring())
    for given in (None, b"junk", header):
        with pytest.raises(Unauthorized):
            handler._authenticate(given, "")


def test_an_older_reading_that_ends_later_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readings of the registry overlap: the newer state stays, and is told of once."""
    may_end = threading.Event()
    begun = threading.Event()
    turns = iter((5, 7))
    turn = threading.Lock()

    def read(known: int) -> RoutingSnapshot:
        with turn:
            generation = next(turns)
        if generation == 5:
            begun.set()
            assert may_end.wait(20)
        return _snapshot(generation)

    monkeypatch.setattr(routing_state, "_read", read)
    told: list[int] = []

    async def run() -> int:
        keeper = RoutingKeeper(on_change=lambda state: told.append(state.generation))
        slow = asyncio.ensure_future(keeper._refresh())
        await asyncio.to_thread(begun.wait, 20)
        await keeper._refresh()
        may_end.set()
        await slow
        return keeper.state.generation

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == 7
    assert told == [7]


def test_a_registry_that_cannot_be_read_leaves_the_last_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Routing goes on by what was known."""

    def read(known: int) -> RoutingSnapshot:
        if known >= 0:
            raise OSError("the registry is away")
        return _snapshot(3)

    monkeypatch.setattr(routing_state, "_read", read)

    async def run() -> RoutingState:
        keeper = RoutingKeeper(on_change=lambda _: None)
        await keeper._refresh()
        await keeper._refresh()
        return keeper.state

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()).generation == 3
