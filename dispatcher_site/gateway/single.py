"""Answering one ask from the one shard that owns its key: the most frequent way, kept short.

Every ask ends with exactly one outcome, at its deadline at the latest. A refusal that says our map
is old costs one refresh and one more try. A write has a key, the client's or one that is made for
this hop, so that it too may be sent again when its connection broke: the shard does it once.

Invariant: a problem that calls itself retryable promises that trying again does nothing twice.
"""

from __future__ import annotations

import logging

import msgspec

from dispatcher_site.gateway.leg_tags import tags_of
from dispatcher_site.gateway.refusals import problem_of, untrusted
from dispatcher_site.gateway.roads import Roads
from dispatcher_site.gateway.tries import HOP_MS, TRIES_MAX, Done, can_help, final, try_later
from modeldefs.kit.answers import groups_outcome, page_outcome
from modeldefs.kit.asks import ONE_SHARD, Ask, Outcome, PageOutcome, Unchanged, Written
from modeldefs.kit.buckets import bucket_of
from modeldefs.wire import calls
from modeldefs.wire.frames import NO_REQUEST
from modeldefs.wire.meters import RETRIES
from modeldefs.wire.problems import (
    DeadlineExceeded,
    Internal,
    Problem,
    ShardFault,
    ShardReset,
    ShardUnavailable,
)

logger = logging.getLogger(__name__)


class SingleShard(msgspec.Struct, eq=False):
    """One ask under way to the owner of its key. A struct: one is made for every such ask."""

    _ask: Ask
    _key: str
    _done: Done
    _roads: Roads
    deadline: float  # in the loop's time
    is_over: bool = False
    _tries: int = 0
    _was_lost: bool = False  # a try's connection broke: it may have been done
    _shard: str = ""
    _request_id: int = NO_REQUEST
    _body: bytes = b""

    def begin(self) -> None:
        """Send the call to whom the current map says owns the key."""
        ask = self._ask
        shard_map = self._roads.keeper.state.shard_map
        if shard_map is None:
            self._finish(ShardUnavailable("the cluster has no shard map yet"))
            return
        self._tries += 1
        bucket = bucket_of(self._key)
        shard, epoch = shard_map.owner_at(bucket)
        self._shard = shard
        client = self._roads.streams.client(shard)
        if client is None:
            self._finish(self._told(problem_of(self._roads.streams, shard, 0, b"refused")))
            return
        if not self._body:
            self._body = calls.encode(ask.call(is_hop=True))
        # The first try has all of the time; asking the clock again would only cost.
        left_ms = ask.timeout_ms
        if self._tries == 1:
            self._roads.deadlines.watch(self)
        else:
            left_ms = int((self.deadline - self._roads.loop.time()) * 1_000)
        if ask.trace is not None:
            ask.trace.sent(shard)
        self._request_id = client.send(
            endpoint=ask.served.endpoint.number,
            flags=calls.JOINED,
            deadline_ms=max(1, left_ms - HOP_MS),
            epoch=epoch,
            bucket=bucket,
            body=self._body,
            done=self._on_answer,
        )

    def _on_answer(self, status: int, body: bytes) -> None:
        if self.is_over:
            return
        self._request_id = NO_REQUEST
        if self._ask.trace is not None:
            self._ask.trace.answered(self._shard)
        plan = self._ask.plan
        if status == calls.WHOLE and plan is not None and plan.groups is None:
            self.is_over = True
            self._done(PageOutcome(body, None, False, ONE_SHARD))
            return
        if status == calls.TAGGED:
            self._finish(self._tagged(body))
            return
        if status in (calls.WHOLE, calls.MORE, calls.REPLAYED):
            self._finish(self._outcome(status, body))
            return
        problem = problem_of(self._roads.streams, self._shard, status, body)
        can_repeat = self._tries < TRIES_MAX and self._roads.loop.time() < self.deadline
        if can_repeat and can_help(problem):
            self._was_lost = self._was_lost or problem.code == ShardReset.code
            try_later(
                problem, self._again, self._roads, shards=[self._shard], deadline=self.deadline
            )
            return
        self._finish(self._told(final(problem, self._shard)))

    def _again(self) -> None:
        if not self.is_over:
            self._ask.served.row[RETRIES] += 1
            self.begin()

    def _told(self, problem: Problem) -> Problem:
        """Return what the client is told: whether a lost try was done is not known by a later one
        that did not come through."""
        is_write = self._ask.plan is None
        is_unknown = is_write and self._was_lost and problem.status >= 500
        if problem.code != ShardReset.code and not is_unknown:
            return problem
        is_safe = not is_write or self._ask.idempotency_key != ""
        return ShardReset(shards=problem.shards, members={"retryable": is_safe})

    def _tagged(self, body: bytes) -> Outcome:
        tags = tags_of(self._ask.reuse, 1)
        told = None if tags is None else tags.take(0, body)
        if tags is None or told is None:
            return untrusted(self._shard)
        tags.settle()
        if tags.is_unchanged:
            return Unchanged(ONE_SHARD)
        status, rows = told
        plan = self._ask.plan
        if status == calls.WHOLE and plan is not None and plan.groups is None:
            return PageOutcome(rows, None, False, ONE_SHARD)
        return self._outcome(status, rows)

    def _outcome(self, status: int, body: bytes) -> Outcome:
        ask = self._ask
        try:
            if ask.plan is None:
                # What a key of our own brings back is the first answer to this very request.
                is_replay = status == calls.REPLAYED and ask.idempotency_key != ""
                return Written(body, replayed=is_replay)
            if ask.plan.groups is not None:
                return groups_outcome(ask, [calls.decode_groups(body)], ONE_SHARD)
            return page_outcome(ask, [calls.decode_page(body)], ONE_SHARD)
        except msgspec.DecodeError:
            return untrusted(self._shard)
        except Problem as problem:
            return problem
        except Exception:
            logger.exception("answer.failed", extra={"request_id": ask.request_id})
            return Internal()

    def on_deadline(self) -> None:
        """Stop waiting, and tell the node so."""
        # A write that left may still be committed: whoever repeats it without a key of theirs may
        # do it twice.
        is_safe = self._ask.idempotency_key != "" or self._ask.prefers.rollback
        has_left = self._request_id != NO_REQUEST or self._was_lost
        unknown = self._ask.plan is None and not is_safe and has_left
        members = {"retryable": False} if unknown else None
        fault = ShardFault(self._shard, "deadline-exceeded", self._ask.timeout_ms)
        self._forget()
        self._finish(DeadlineExceeded(shards=[fault], members=members))

    def _finish(self, outcome: Outcome) -> None:
        if not self.is_over:
            self.is_over = True
            self._done(outcome)

    def _forget(self) -> None:
        client = self._roads.streams.client(self._shard)
        if client is not None and self._request_id != NO_REQUEST:
            client.forget(self._request_id)

    def give_up(self) -> None:
        """The client is gone: stop what still runs for it."""
        self.is_over = True
        self._forget()
