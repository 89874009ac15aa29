"""Where an export's parts come from on the dispatcher: one leg per shard, asked again and again.

All parts of one plan are asked for at the epoch of that plan. When a shard says that the map has
moved on, the export begins anew behind its position by the new one: parts read under two maps
would lack rows that moved between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from dispatcher_site.gateway.legs import body_of, legs_of
from dispatcher_site.gateway.refusals import problem_of, untrusted
from dispatcher_site.gateway.roads import Roads
from dispatcher_site.gateway.tries import HOP_MS, can_help, final, try_later
from dispatcher_site.routing.planner import Leg
from modeldefs.kit.asks import Ask, Shards
from modeldefs.kit.export_merge import Wanted
from modeldefs.kit.exports import OnPart
from modeldefs.wire import calls
from modeldefs.wire.frames import NO_BUCKET, NO_REQUEST
from modeldefs.wire.problems import Overloaded, Problem, ShardUnavailable
from modeldefs.wire.stream import StreamClient

OVERLOAD_WAIT_S = 0.2


class ShardParts:
    """The shards of one export."""

    def __init__(
        self,
        ask: Ask,
        roads: Roads,
    ) -> None:
        self._ask = ask
        self._roads = roads
        self._legs: Sequence[Leg] = ()
        self._requests: dict[int, tuple[StreamClient, int]] = {}  # by place, of those under way
        self._plans = 0

    @property
    def names(self) -> list[str]:
        """Return the shards by place."""
        return [leg.shard for leg in self._legs]

    @property
    def shards(self) -> Shards:
        """Return how many shards are asked: an answer of the dispatcher is about all buckets."""
        return Shards(len(self._legs), len(self._legs))

    def plan(self) -> int:
        """Plan with the current map."""
        shard_map = self._roads.keeper.state.shard_map
        if shard_map is None:
            raise ShardUnavailable("the cluster has no shard map yet")
        self._plans += 1
        self._legs = legs_of(self._ask, shard_map, self._roads.streams)
        return len(self._legs)

    def ask(self, wanted: Wanted, timeout_ms: int, on_part: OnPart) -> None:
        """Send one leg its next question."""
        place = wanted.place
        leg = self._legs[place]
        done = partial(self._on_answer, self._plans, place, leg.shard, on_part)
        client = self._roads.streams.client(leg.shard)
        if client is None:
            self._roads.loop.call_soon(done, 0, b"refused")
            return
        after = None if wanted.after is None else list(wanted.after)
        request_id = client.send(
            endpoint=self._ask.served.endpoint.number,
            flags=calls.EXPORT,
            deadline_ms=max(1, timeout_ms - HOP_MS),
            epoch=leg.epoch,
            bucket=NO_BUCKET if leg.bucket is None else leg.bucket,
            body=body_of(self._ask, leg, limit=wanted.rows, after=after),
            done=done,
        )
        if request_id != NO_REQUEST:
            self._requests[place] = client, request_id

    def forget(self) -> None:
        """Give up what is under way, at the nodes too."""
        self._plans += 1
        requests, self._requests = self._requests, {}
        for client, request_id in requests.values():
            client.forget(request_id)

    def mend(self, problem: Problem, again: Callable[[], None]) -> bool:
        """Try again after what a moment or a new map can mend."""
        if isinstance(problem, Overloaded):
            self._roads.loop.call_later(OVERLOAD_WAIT_S, again)
            return True
        if not can_help(problem):
            return False
        try_later(
            problem,
            again,
            self._roads,
            shards=[leg.shard for leg in self._legs],
            deadline=self._roads.loop.time() + self._ask.timeout_ms / 1_000,
        )
        return True

    def final(self, problem: Problem, place: int) -> Problem:
        """Return what the client is told of a problem that was not mended."""
        return final(problem, self._legs[place].shard)

    def _on_answer(
        self, plan: int, place: int, shard: str, on_part: OnPart, status: int, body: bytes
    ) -> None:
        if plan != self._plans:
            return
        self._requests.pop(place, None)
        if status != calls.WHOLE:
            on_part(place, problem_of(self._roads.streams, shard, status, body))
            return
        try:
            part = calls.decode_page(body)
        except msgspec.DecodeError:
            on_part(place, untrusted(shard))
            return
        on_part(place, part)
