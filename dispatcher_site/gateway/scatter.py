"""Answering one ask from the shards: legs out, parts in, one outcome.

Every ask ends with exactly one outcome, at its deadline at the latest. An answer is whole or it is
a problem that names the shards that are missing; nothing in between. A refusal that says our map
is old costs one refresh and one more try. Writes go to one shard, by ``single``.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence

import msgspec

from dispatcher_site.gateway.refusals import MOVED, problem_of, unsettled, untrusted
from dispatcher_site.gateway.routing_state import RoutingKeeper
from dispatcher_site.gateway.streams import Streams
from dispatcher_site.routing.planner import Leg, plan_request
from dispatcher_site.routing.shard_map import ShardMap
from modeldefs.kit.answers import groups_outcome, merged_outcome, page_outcome
from modeldefs.kit.asks import Ask, Outcome, PageOutcome, Shards
from modeldefs.kit.merge import first_limit
from modeldefs.wire import calls
from modeldefs.wire.frames import NO_BUCKET, NO_REQUEST
from modeldefs.wire.problems import (
    DeadlineExceeded,
    Internal,
    Problem,
    ShardFault,
    ShardUnavailable,
)

logger = logging.getLogger(__name__)

HOP_MS = 20  # what is kept back of the deadline for our own work
TRIES_MAX = 2

Done = Callable[[Outcome], None]


class Scatter:
    """One ask under way to several shards, or to any one of them."""

    __slots__ = (
        "_ask",
        "_deadline",
        "_done",
        "_is_page",
        "_is_partly",
        "_is_whole",
        "_keeper",
        "_left",
        "_legs",
        "_loop",
        "_parts",
        "_requests",
        "_streams",
        "_timer",
        "_tries",
    )

    def __init__(
        self,
        ask: Ask,
        done: Done,
        keeper: RoutingKeeper,
        streams: Streams,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ask = ask
        self._done: Done | None = done
        self._keeper, self._streams, self._loop = keeper, streams, loop
        self._deadline = loop.time() + ask.timeout_ms / 1_000
        self._timer = loop.call_at(self._deadline, self._on_deadline)
        self._tries = 0
        self._legs: Sequence[Leg] = ()
        self._parts: list[bytes | None] = []
        self._requests: list[tuple[str, int]] = []
        self._left = 0
        self._is_whole = self._is_partly = False
        plan = ask.plan
        self._is_page = plan is not None and plan.groups is None

    def begin(self) -> None:
        """Plan with the current map and send every leg."""
        shard_map = self._keeper.state.shard_map
        if shard_map is None:
            self._finish(ShardUnavailable("the cluster has no shard map yet"))
            return
        self._tries += 1
        self._legs = self._plan(shard_map)
        self._parts = [None] * len(self._legs)
        self._requests = []
        self._left = len(self._legs)
        if not self._legs:
            self._merge()
            return
        self._is_partly = False
        limit = self._ask.limit
        if self._is_page and len(self._legs) > 1:
            limit = first_limit(limit, len(self._legs))
            self._is_partly = limit < self._ask.limit
        self._send_legs(range(len(self._legs)), limit)

    def _send_legs(self, places: Iterable[int], limit: int) -> None:
        flags = calls.JOINED if len(self._legs) == 1 else 0
        body = self._body(None, limit)
        for place in places:
            leg = self._legs[place]
            self._send(place, leg, flags, self._body(leg, limit) if leg.replaced else body)

    def _plan(self, shard_map: ShardMap) -> Sequence[Leg]:
        ask = self._ask
        assert ask.plan is not None
        route = ask.plan.route
        return plan_request(
            shard_map,
            reach=route.reach,
            parameter=route.parameter,
            constants=route.constants,
            values=ask.values,
            choose=self._choose,
        ).legs

    def _choose(self, shards: Sequence[str]) -> str:
        open_now = [
            shard
            for shard in shards
            if (client := self._streams.client(shard)) is not None and client.connected
        ]
        return random.choice(open_now or list(shards))  # noqa: S311 - spreading load, no secret

    def _body(self, leg: Leg | None, limit: int) -> bytes:
        ask = self._ask
        values = ask.values
        if leg is not None and leg.replaced is not None:
            name, own = leg.replaced
            values = {**values, name: own}
        present = [values[name] for name in ask.served.names if name in values]
        return calls.encode(
            calls.Call(
                ask.mask,
                present,
                limit,
                ask.after,
                ask.principal.kid,
                ask.request_id,
            )
        )

    def _send(self, place: int, leg: Leg, flags: int, body: bytes) -> None:
        client = self._streams.client(leg.shard)
        if client is None:
            self._loop.call_soon(self._on_part, place, leg.shard, 0, b"refused", self._tries)
            return
        attempt = self._tries
        left_ms = int((self._deadline - self._loop.time()) * 1_000) - HOP_MS
        request_id = client.send(
            endpoint=self._ask.served.endpoint.number,
            flags=flags,
            deadline_ms=max(1, left_ms),
            epoch=leg.epoch,
            bucket=NO_BUCKET if leg.bucket is None else leg.bucket,
            body=body,
            done=lambda status, answer: self._on_part(place, leg.shard, status, answer, attempt),
        )
        if request_id != NO_REQUEST:
            self._requests.append((leg.shard, request_id))

    def _on_part(self, place: int, shard: str, status: int, body: bytes, attempt: int) -> None:
        if self._done is None or attempt != self._tries:
            return  # answered already, or an answer to an earlier try
        if status in (calls.WHOLE, calls.MORE):
            self._is_whole = status == calls.WHOLE
            self._parts[place] = body
            self._left -= 1
            if self._left == 0:
                self._merge()
            return
        problem = problem_of(self._streams, shard, status, body)
        can_repeat = self._tries < TRIES_MAX and self._loop.time() < self._deadline
        # Whatever else this try still brings is of no use: begin() counts the next one.
        if problem.code in MOVED:
            if can_repeat:
                self._forget_others()
                self._keeper.refresh_soon().add_done_callback(lambda _: self._again())
                return
            problem = unsettled(shard)
        elif problem.code == "shard-reset" and can_repeat:
            self._forget_others()
            self._loop.call_later(HOP_MS / 1_000, self._again)
            return
        self._finish(problem)

    def _again(self) -> None:
        if self._done is not None:
            self.begin()

    def _merge(self) -> None:
        try:
            outcome = self._outcome()
            if outcome is not None:
                self._finish(outcome)
        except Problem as problem:
            self._finish(problem)
        except Exception:
            logger.exception("merge.failed", extra={"request_id": self._ask.request_id})
            self._finish(Internal())

    def _outcome(self) -> Outcome | None:
        """Return the outcome; None when shards must be asked for more first."""
        ask = self._ask
        bodies = [body for body in self._parts if body is not None]
        assert ask.plan is not None
        shards = Shards(len(self._legs), len(bodies))
        try:
            if ask.plan.groups is not None:
                return groups_outcome(ask, [calls.decode_groups(body) for body in bodies], shards)
            if len(self._legs) == 1 and self._is_whole:
                return PageOutcome(bodies[0], None, False, shards)
            parts = [calls.decode_page(body) for body in bodies]
            if not self._is_partly:
                return page_outcome(ask, parts, shards)
            outcome, short = merged_outcome(ask, parts, shards)
        except msgspec.DecodeError:
            return untrusted(*(leg.shard for leg in self._legs))
        if not short:
            return outcome
        # Each shard was asked for its share of the page, and these may hold more of it.
        self._is_partly = False
        self._left = len(short)
        for place in short:
            self._parts[place] = None
        self._send_legs(short, ask.limit)
        return None

    def _on_deadline(self) -> None:
        waited = [
            ShardFault(leg.shard, "deadline-exceeded", self._ask.timeout_ms)
            for leg, part in zip(self._legs, self._parts, strict=True)
            if part is None
        ]
        self._finish(DeadlineExceeded(shards=waited))

    def _finish(self, outcome: Outcome) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        self._timer.cancel()
        if isinstance(outcome, Problem):
            self._forget_others()
        done(outcome)

    def _forget_others(self) -> None:
        for shard, request_id in self._requests:
            client = self._streams.client(shard)
            if client is not None:
                client.forget(request_id)
        self._requests = []

    def give_up(self) -> None:
        """The client is gone: stop everything that still runs for it."""
        self._done = None
        self._timer.cancel()
        self._forget_others()
