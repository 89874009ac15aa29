"""Answering one ask from the shards: legs out, parts in, one outcome.

Every ask ends with exactly one outcome, at its deadline at the latest. An answer is whole or it is
a problem that names the shards that are missing; only who prefers it partial gets what came, with
the names of what did not. A refusal that says our map is old costs one refresh and one more try.
Writes go to one shard, by ``single``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from operator import attrgetter

import msgspec

from dispatcher_site.gateway.leg_tags import LegTags, tags_of
from dispatcher_site.gateway.legs import body_of, legs_of, portions_of
from dispatcher_site.gateway.refusals import (
    ABSENT,
    absence_of,
    none_answered,
    problem_of,
    untrusted,
)
from dispatcher_site.gateway.roads import Roads
from dispatcher_site.gateway.tries import HOP_MS, TRIES_MAX, Done, can_help, final, try_later
from dispatcher_site.routing.planner import Leg
from dispatcher_site.routing.shard_map import ShardMap
from modeldefs.kit.answers import groups_outcome, merged_outcome, page_outcome, walked_outcome
from modeldefs.kit.asks import Ask, Outcome, PageOutcome, Shards, Unchanged
from modeldefs.kit.buckets import BUCKET_COUNT
from modeldefs.kit.merge import first_limit
from modeldefs.kit.walks import Portion, joined, size
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
        "_done",
        "_faults",
        "_is_page",
        "_is_partly",
        "_is_whole",
        "_left",
        "_legs",
        "_map",
        "_parts",
        "_portions",
        "_requests",
        "_roads",
        "_tags",
        "_tries",
        "deadline",
        "is_over",
    )

    def __init__(
        self,
        ask: Ask,
        done: Done,
        roads: Roads,
    ) -> None:
        self._ask = ask
        self._done = done
        self.is_over = False
        self._roads = roads
        self.deadline = roads.loop.time() + ask.timeout_ms / 1_000
        self._tries = 0
        self._map: ShardMap | None = None
        self._legs: Sequence[Leg] = ()
        self._portions: Sequence[Portion] = ()  # of the legs, where ranges of the walk lag
        self._faults: dict[str, ShardFault] = {}  # of the shards that will be missing
        self._parts: list[bytes | None] = []
        self._requests: list[tuple[str, int]] = []
        self._left = 0
        self._is_whole = self._is_partly = False
        self._tags: LegTags | None = None
        plan = ask.plan
        self._is_page = plan is not None and plan.groups is None

    def begin(self) -> None:
        """Plan with the current map and send every leg."""
        shard_map = self._roads.keeper.state.shard_map
        if shard_map is None:
            self._finish(ShardUnavailable("the cluster has no shard map yet"))
            return
        self._tries += 1
        if self._tries == 1:
            self._roads.deadlines.watch(self)
        self._map = shard_map
        self._legs = legs_of(self._ask, shard_map, self._roads.streams)
        if self._ask.lagging:
            self._legs, self._portions = portions_of(self._ask, self._legs, shard_map)
        self._parts = [None] * len(self._legs)
        self._requests = []
        self._faults = {}
        self._tags = tags_of(self._ask.reuse, len(self._legs))
        self._left = len(self._legs)
        if not self._legs:
            self._merge()
            return
        limit = self._first_limit()
        self._is_partly = limit < self._ask.limit
        self._send_legs(range(len(self._legs)), limit)

    def _first_limit(self) -> int:
        """Return how many rows each shard is asked for at first."""
        limit = self._ask.limit
        is_whole = not (self._portions or self._ask.prefers.partial)
        if self._is_page and is_whole and len(self._legs) > 1:
            return first_limit(limit, len(self._legs))
        return limit

    def _send_legs(self, places: Iterable[int], limit: int) -> None:
        ask = self._ask
        if self._portions:
            for place in places:
                leg, (_, after, ranges) = self._legs[place], self._portions[place]
                self._send(
                    place, leg, 0, body_of(ask, leg, limit=limit, after=after, ranges=ranges)
                )
            return
        flags = calls.JOINED if len(self._legs) == 1 else 0
        tags = self._tags
        body = body_of(ask, None, limit=limit, after=ask.after)
        for place in places:
            leg, own = self._legs[place], body
            if leg.replaced or tags is not None:
                tag = None if tags is None else tags.known(place)
                own = body_of(ask, leg, limit=limit, after=ask.after, tag=tag)
            self._send(place, leg, flags, own)

    def _send(self, place: int, leg: Leg, flags: int, body: bytes) -> None:
        client = self._roads.streams.client(leg.shard)
        if client is None:
            self._roads.loop.call_soon(self._on_part, place, leg.shard, 0, b"refused", self._tries)
            return
        attempt = self._tries
        left_ms = int((self.deadline - self._roads.loop.time()) * 1_000) - HOP_MS
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
        if status == calls.TAGGED:
            told = None if self._tags is None else self._tags.take(place, body)
            if told is None:
                self._finish(untrusted(shard))
                return
            status, body = told
        if status in (calls.WHOLE, calls.MORE, calls.UNCHANGED):
            self._is_whole = status == calls.WHOLE
            self._parts[place] = body
            self._end_leg()
            return
        problem = problem_of(self._roads.streams, shard, status, body)
        can_repeat = self._tries < TRIES_MAX and self._roads.loop.time() < self.deadline
        if can_repeat and can_help(problem):
            # Whatever this one still brings, another shard's end above all, is of no use any more.
            self._forget_others()
            self._tries += 1
            shards = [leg.shard for leg in self._legs]
            try_later(problem, self._again, self._roads, shards=shards, deadline=self.deadline)
            return
        problem = final(problem, shard)
        if self._ask.prefers.partial and problem.code in ABSENT:
            self._faults.setdefault(shard, absence_of(problem, shard, self._took_ms()))
            self._end_leg()
        else:
            self._finish(problem)

    def _end_leg(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._merge()

    def _took_ms(self) -> float:
        return (self._roads.loop.time() - self.deadline) * 1_000 + self._ask.timeout_ms

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
        assert ask.plan is not None
        if self._faults or self._portions:
            return self._outcome_with_holes()
        if self._tags is not None:
            if self._tags.is_unchanged:
                self._tags.settle()
                return Unchanged(Shards(len(self._legs), len(self._legs)))
            if again := self._tags.to_ask_again():
                self._ask_again(again, self._first_limit() if self._is_partly else ask.limit)
                return None
            self._tags.settle()
        bodies = [body for body in self._parts if body is not None]
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
        self._ask_again(short, ask.limit)
        return None

    def _ask_again(self, places: Sequence[int], limit: int) -> None:
        self._left = len(places)
        for place in places:
            self._parts[place] = None
        self._send_legs(places, limit)

    def _outcome_with_holes(self) -> Outcome:
        """Return the outcome of a walk some of whose ranges lag, or of what came."""
        ask, faults = self._ask, self._faults
        assert self._map is not None
        assert ask.plan is not None
        asked = {leg.shard for leg in self._legs}
        if len(faults) == len(asked):
            return none_answered(tuple(faults.values()))
        missing = joined(pair for shard in faults for pair in self._map.ranges_of(shard))
        shards = Shards(
            len(asked),
            len(asked) - len(faults),
            1 - size(missing) / BUCKET_COUNT,
            tuple(sorted(faults.values(), key=attrgetter("id"))),
        )
        # Of a shard that is missing in one leg the others do not count either.
        bodies = [
            body
            for leg, body in zip(self._legs, self._parts, strict=True)
            if body is not None and leg.shard not in faults
        ]
        try:
            if ask.plan.groups is not None:
                return groups_outcome(ask, [calls.decode_groups(body) for body in bodies], shards)
            parts = [calls.decode_page(body) for body in bodies]
        except msgspec.DecodeError:
            return untrusted(*asked.difference(faults))
        return walked_outcome(ask, parts, shards, missing)

    def on_deadline(self) -> None:
        """Name the shards that were waited for, or do without them."""
        waited = [
            ShardFault(leg.shard, "deadline-exceeded", self._ask.timeout_ms)
            for leg, part in zip(self._legs, self._parts, strict=True)
            if part is None and leg.shard not in self._faults
        ]
        if not self._ask.prefers.partial:
            self._finish(DeadlineExceeded(shards=waited))
            return
        self._forget_others()
        self._faults |= {fault.id: fault for fault in waited}
        self._merge()

    def _finish(self, outcome: Outcome) -> None:
        if self.is_over:
            return
        self.is_over = True
        if isinstance(outcome, Problem):
            self._forget_others()
        self._done(outcome)

    def _forget_others(self) -> None:
        for shard, request_id in self._requests:
            client = self._roads.streams.client(shard)
            if client is not None:
                client.forget(request_id)
        self._requests = []

    def give_up(self) -> None:
        """The client is gone: stop everything that still runs for it."""
        self.is_over = True
        self._forget_others()
