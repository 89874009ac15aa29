"""Answering one ask from the shards: legs out, parts in, one outcome.

Every ask ends with exactly one outcome, at its deadline at the latest. An answer is whole or it is
a problem that names the shards that are missing; nothing in between. A refusal that says our map
is old costs one refresh and one more try. Writes go to one shard, by ``single``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

import msgspec

from dispatcher_site.gateway.deadlines import Deadlines
from dispatcher_site.gateway.legs import body_of, legs_of
from dispatcher_site.gateway.refusals import problem_of, untrusted
from dispatcher_site.gateway.routing_state import RoutingKeeper
from dispatcher_site.gateway.streams import Streams
from dispatcher_site.gateway.tries import HOP_MS, TRIES_MAX, Done, can_help, final, try_later
from dispatcher_site.routing.planner import Leg
from modeldefs.kit.answers import groups_outcome, merged_outcome, page_outcome
from modeldefs.kit.asks import Ask, Outcome, PageOutcome, Shards
from modeldefs.kit.merge import first_limit
from modeldefs.wire import calls
from modeldefs.wire.frames import NO_BUCKET, NO_REQUEST
from modeldefs.wire.meters import RETRIES
from modeldefs.wire.problems import (
    DeadlineExceeded,
    Internal,
    Problem,
    ShardFault,
    ShardUnavailable,
)

logger = logging.getLogger(__name__)


class Scatter:
    """One ask under way to several shards, or to any one of them."""

    __slots__ = (
        "_ask",
        "_deadlines",
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
        "_tries",
        "deadline",
        "is_over",
    )

    def __init__(
        self,
        ask: Ask,
        done: Done,
        *,
        keeper: RoutingKeeper,
        streams: Streams,
        deadlines: Deadlines,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ask = ask
        self._done = done
        self.is_over = False
        self._keeper, self._streams, self._deadlines, self._loop = keeper, streams, deadlines, loop
        self.deadline = loop.time() + ask.timeout_ms / 1_000
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
        if self._tries == 1:
            self._deadlines.watch(self)
        self._legs = legs_of(self._ask, shard_map, self._streams)
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
        ask = self._ask
        flags = calls.JOINED if len(self._legs) == 1 else 0
        body = body_of(ask, None, limit=limit, after=ask.after)
        for place in places:
            leg = self._legs[place]
            own = body_of(ask, leg, limit=limit, after=ask.after) if leg.replaced else body
            self._send(place, leg, flags, own)

    def _send(self, place: int, leg: Leg, flags: int, body: bytes) -> None:
        client = self._streams.client(leg.shard)
        if client is None:
            self._loop.call_soon(self._on_part, place, leg.shard, 0, b"refused", self._tries)
            return
        attempt = self._tries
        left_ms = int((self.deadline - self._loop.time()) * 1_000) - HOP_MS
        if self._ask.trace is not None:
            self._ask.trace.sent(leg.shard)
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
        if self.is_over or attempt != self._tries:
            return  # answered already, or an answer to an earlier try
        if self._ask.trace is not None:
            self._ask.trace.answered(shard)
        if status in (calls.WHOLE, calls.MORE):
            self._is_whole = status == calls.WHOLE
            self._parts[place] = body
            self._left -= 1
            if self._left == 0:
                self._merge()
            return
        problem = problem_of(self._streams, shard, status, body)
        can_repeat = self._tries < TRIES_MAX and self._loop.time() < self.deadline
        if can_repeat and can_help(problem):
            # Whatever this one still brings, another shard's end above all, is of no use any more.
            self._forget_others()
            self._tries += 1
            try_later(
                problem,
                self._again,
                keeper=self._keeper,
                loop=self._loop,
                deadline=self.deadline,
                is_open=lambda: all(self._streams.is_open(leg.shard) for leg in self._legs),
            )
            return
        self._finish(final(problem, shard))

    def _again(self) -> None:
        if not self.is_over:
            self._ask.served.row[RETRIES] += 1
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

    def on_deadline(self) -> None:
        """Name the shards that were waited for."""
        waited = [
            ShardFault(leg.shard, "deadline-exceeded", self._ask.timeout_ms)
            for leg, part in zip(self._legs, self._parts, strict=True)
            if part is None
        ]
        self._finish(DeadlineExceeded(shards=waited))

    def _finish(self, outcome: Outcome) -> None:
        if self.is_over:
            return
        self.is_over = True
        if isinstance(outcome, Problem):
            self._forget_others()
        self._done(outcome)

    def _forget_others(self) -> None:
        for shard, request_id in self._requests:
            client = self._streams.client(shard)
            if client is not None:
                client.forget(request_id)
        self._requests = []

    def give_up(self) -> None:
        """The client is gone: stop everything that still runs for it."""
        self.is_over = True
        self._forget_others()
