"""Answering one batch: its items to their owners, one call for each, and one outcome of all.

Each shard writes its items together or not at all; the shards do not wait for each other. So the
outcome comes when every shard has answered, at the deadline at the latest: the rows of all items,
or a problem that says of each item whether it was written.

A refusal that says our map is old wrote nothing: those items are grouped anew, once. A call whose
connection broke is sent again, once, as it was and to the same shard, under the key of its first
try: so it is done once, whatever became of that.

Invariant: of items that an earlier try may have written, ours or the client's under its key, none
is called unwritten unless their shard looked under that key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

from dispatcher_site.gateway.refusals import MOVED, problem_of, untrusted
from dispatcher_site.gateway.roads import Roads
from dispatcher_site.gateway.tries import HOP_MS, TRIES_MAX, Done, final, try_later
from dispatcher_site.routing.grouping import Group, group_items
from modeldefs.kit.asks import Ask, Outcome, Written
from modeldefs.kit.many_answers import Fate, Part, fate_of, joined, refusal, split_rows
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


class _Leg:
    """The call to one shard."""

    __slots__ = ("body", "epoch", "group", "request_id", "tries", "was_lost", "was_moved")

    def __init__(self, group: Group, body: bytes, epoch: int, *, was_moved: bool) -> None:
        self.group, self.body, self.epoch = group, body, epoch
        self.was_moved = was_moved  # its items were refused once as another shard's
        self.was_lost = False  # a try may have been committed
        self.tries = 0
        self.request_id = NO_REQUEST


class Many:
    """One batch under way."""

    __slots__ = (
        "_ask", "_done", "_is_keyed", "_legs", "_moved", "_parts", "_roads", "deadline", "is_over",
    )  # fmt: skip

    def __init__(
        self,
        ask: Ask,
        done: Done,
        roads: Roads,
    ) -> None:
        self._ask, self._done = ask, done
        self._is_keyed = ask.idempotency_key != ""  # by the client, who may be repeating
        self._roads = roads
        self.deadline = roads.loop.time() + ask.timeout_ms / 1_000
        self.is_over = False
        self._legs: list[_Leg] = []  # that are not answered yet
        self._moved: list[int] = []  # items that wait for a newer map
        self._parts: list[Part] = []

    def begin(self) -> None:
        """Send every item to whom the current map says owns it."""
        self._roads.deadlines.watch(self)
        self._start(range(len(self._ask.item_keys())), was_moved=False)
        self._settle()

    def _start(self, places: Iterable[int], *, was_moved: bool) -> None:
        shard_map = self._roads.keeper.state.shard_map
        if shard_map is None:
            problem = ShardUnavailable("the cluster has no shard map yet")
            self._unsent(list(places), problem)
            return
        started = []
        for group in group_items(shard_map, self._ask.item_keys(), places):
            buckets = sorted(group.epochs)
            epochs = [group.epochs[bucket] for bucket in buckets]
            call = self._ask.many_call(group.places, buckets, epochs, is_hop=True)
            leg = _Leg(group, calls.encode(call), shard_map.epoch, was_moved=was_moved)
            self._legs.append(leg)
            started.append(leg)
        for leg in started:
            self._send(leg)

    def _send(self, leg: _Leg) -> None:
        leg.tries += 1
        shard = leg.group.shard
        client = self._roads.streams.client(shard)
        if client is None:
            self._refused(leg, problem_of(self._roads.streams, shard, 0, b"refused"))
            return
        if self._ask.trace is not None:
            self._ask.trace.sent(shard)
        left_ms = int((self.deadline - self._roads.loop.time()) * 1_000) - HOP_MS
        leg.request_id = client.send(
            endpoint=self._ask.served.endpoint.number,
            flags=0,
            deadline_ms=max(1, left_ms),
            epoch=leg.epoch,
            bucket=NO_BUCKET,
            body=leg.body,
            done=partial(self._on_answer, leg),
        )

    def _on_answer(self, leg: _Leg, status: int, body: bytes) -> None:
        if self.is_over:
            return
        leg.request_id = NO_REQUEST
        shard = leg.group.shard
        if self._ask.trace is not None:
            self._ask.trace.answered(shard)
        if status in (calls.WHOLE, calls.REPLAYED):
            rows = split_rows(body)
            if len(rows) == len(leg.group.places):
                is_replay = status == calls.REPLAYED and self._is_keyed
                self._end(leg, Part(leg.group.places, Fate.WRITTEN, rows, is_replay))
            else:
                self._refused(leg, untrusted(shard))
            self._settle()
            return
        problem = problem_of(self._roads.streams, shard, status, body)
        in_time = self._roads.loop.time() < self.deadline
        if problem.code in MOVED and in_time and not (leg.was_moved or leg.was_lost):
            self._legs.remove(leg)
            self._moved += leg.group.places
            self._later(problem, shard, self._regroup)
            return
        if problem.code == "shard-reset" and in_time and leg.tries < TRIES_MAX:
            leg.was_lost = True
            self._later(problem, shard, partial(self._again, leg))
            return
        self._refused(leg, final(problem, shard), status)
        self._settle()

    def _later(self, problem: Problem, shard: str, again: Callable[[], None]) -> None:
        try_later(problem, again, self._roads, shards=[shard], deadline=self.deadline)

    def _again(self, leg: _Leg) -> None:
        if not self.is_over:
            self._ask.served.row[RETRIES] += 1
            self._send(leg)
            self._settle()

    def _regroup(self) -> None:
        places, self._moved = sorted(self._moved), []
        if places and not self.is_over:
            self._ask.served.row[RETRIES] += 1
            self._start(places, was_moved=True)
            self._settle()

    def _unsent(self, places: list[int], problem: Problem) -> None:
        # Of items that were not sent, only an earlier request under the key can have been done.
        fate = Fate.UNKNOWN if self._is_keyed else Fate.REFUSED
        self._parts.append(Part(places, fate, problem=problem))

    def _refused(self, leg: _Leg, problem: Problem, status: int = 0) -> None:
        group = leg.group
        may_be_done = leg.was_lost or self._is_keyed
        if status == 504 and not may_be_done:
            fate = Fate.REFUSED  # a node says so of a statement that it took back or never began
        else:
            fate = fate_of(problem, may_be_done=may_be_done)
        self._end(leg, Part(group.places, fate, problem=problem, shard=group.shard))

    def _end(self, leg: _Leg, part: Part) -> None:
        if leg in self._legs:
            self._legs.remove(leg)
            self._parts.append(part)

    def _settle(self) -> None:
        """Give the outcome if nothing is under way any more."""
        if self._legs or self._moved or self.is_over:
            return
        outcome: Outcome
        try:
            if all(part.problem is None for part in self._parts):
                replayed = all(part.is_replay for part in self._parts)
                outcome = Written(joined(self._parts), replayed=replayed)
            else:
                outcome = refusal(self._parts, is_keyed=self._is_keyed)
        except Exception:
            logger.exception("answer.failed", extra={"request_id": self._ask.request_id})
            outcome = Internal()
        self.is_over = True
        self._done(outcome)

    def on_deadline(self) -> None:
        """Stop waiting: what was sent may still be committed, what waits for a map was not."""
        if self._moved:
            self._unsent(sorted(self._moved), DeadlineExceeded())
            self._moved = []
        for leg in list(self._legs):
            shard = leg.group.shard
            self._forget(leg)
            fault = ShardFault(shard, "deadline-exceeded", self._ask.timeout_ms)
            self._refused(leg, DeadlineExceeded(shards=[fault]))
        self._settle()

    def _forget(self, leg: _Leg) -> None:
        client = self._roads.streams.client(leg.group.shard)
        if client is not None and leg.request_id != NO_REQUEST:
            client.forget(leg.request_id)

    def give_up(self) -> None:
        """The client is gone: what was sent is written or not, and nobody is told."""
        self.is_over = True
        for leg in self._legs:
            self._forget(leg)
