"""Streams whose every try ends as a test says, and asks to send down them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import uvloop

from dispatcher_site.gateway.backend import ShardsBackend
from dispatcher_site.gateway.routing_state import RoutingKeeper, RoutingState
from dispatcher_site.gateway.streams import Streams
from dispatcher_site.routing.shard_map import ShardMap
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.asks import Ask, Outcome, Served
from modeldefs.kit.buckets import BUCKET_COUNT
from modeldefs.wire import calls
from modeldefs.wire.frames import NO_REQUEST
from modeldefs.wire.keys import Keyring, Principal
from modeldefs.wire.problems import Problem

PATIENCE_S = 20.0
RESET = (0, b"shard-reset")
REFUSED = (0, b"refused")
SATURATED = (0, b"saturated")
SILENCE = (-1, b"")
DONE = (calls.WHOLE, b'{"id":"7"}')
EMPTY = (calls.WHOLE, b"")
Answer = tuple[int, bytes]


def refusal(problem: Problem) -> Answer:
    """Return what a node sends for a problem."""
    return problem.status, msgspec.msgpack.encode(problem.to_wire())


@dataclass
class ScriptedStream:
    """One shard's stream: takes calls, and ends them in the order of its script."""

    script: deque[Answer]
    polls_until_open: int = 0  # how often it is found closed after a reset
    sent: list[bytes] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    is_broken: bool = False

    @property
    def connected(self) -> bool:
        """Is it open again?"""
        if self.is_broken and self.polls_until_open:
            self.polls_until_open -= 1
            return False
        self.is_broken = False
        return True

    def send(self, *, body: bytes, done: Callable[[int, bytes], None], **_: Any) -> int:
        """End the call as the script says."""
        loop = asyncio.get_running_loop()
        self.keys.append(_key_in(body))
        status, answer = REFUSED if self.is_broken else self.script.popleft()
        if (status, answer) == SILENCE:
            return 1
        self.is_broken = self.is_broken or (status, answer) == RESET
        loop.call_soon(done, status, answer)
        return NO_REQUEST if (status, answer) in (REFUSED, SATURATED) else 1

    def forget(self, request_id: int) -> None:
        """Take note."""
        self.forgotten.append(request_id)


def _key_in(body: bytes) -> str:
    is_batch = isinstance(calls.decode_plain(body)[0], list)
    call = calls.decode_many(body) if is_batch else calls.decode_call(body)
    return call.idempotency_key


class ScriptedStreams(Streams):
    """The streams of a front worker, scripted."""

    def __init__(self, **streams: ScriptedStream) -> None:
        super().__init__("bundle")
        self._scripted = streams

    def client(self, shard: str) -> Any:
        """Return the scripted stream."""
        return self._scripted[shard]

    def is_open(self, shard: str) -> bool:
        """Ask the scripted stream."""
        return self._scripted[shard].connected

    def state_of(self, shard: str) -> str:
        """Return why a closed stream is closed."""
        return "refused"


class ScriptedKeeper:
    """A map that never changes."""

    def __init__(self, shards: Sequence[str]) -> None:
        size = BUCKET_COUNT // len(shards)
        edges = [*range(0, size * len(shards), size), BUCKET_COUNT]
        ranges = [(edges[n], edges[n + 1] - 1, shard, 1) for n, shard in enumerate(shards)]
        self.state = RoutingState(1, "d", ShardMap.of(1, ranges), {}, Keyring())
        self.refreshes = 0

    def refresh_soon(self) -> asyncio.Future[None]:
        """Read nothing new."""
        self.refreshes += 1
        found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        found.set_result(None)
        return found


def ask(name: str, *, key: str = "", timeout_ms: int = 2_000, **values: Any) -> Ask:
    """Return a checked request for an endpoint of the examples."""
    catalog = current_catalog()
    served = Served(catalog.endpoints[name])
    is_write = served.verb == "write"
    return Ask(
        served,
        None if is_write else catalog.plan(served.endpoint, frozenset(values)),
        served.mask_of(values),
        dict(values),
        50,
        None,
        Principal("kid", "owner", ("*",), "live"),
        "0123456789abcdef",
        timeout_ms,
        key,
    )


def outcome_of(asked: Ask, **streams: ScriptedStream) -> Outcome:
    """Return what the dispatcher's backend makes of an ask."""

    async def scenario() -> Outcome:
        keeper = cast(RoutingKeeper, ScriptedKeeper(sorted(streams)))
        backend = ShardsBackend(keeper=keeper, streams=ScriptedStreams(**streams))
        came: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        backend.submit(asked, came.set_result)  # raises if it is told twice
        return await asyncio.wait_for(came, PATIENCE_S)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scenario())
