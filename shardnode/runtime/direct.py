"""Direct calls: this node as the whole backend, for what it owns.

A call for a bucket of another shard is refused and told the owner. A call without a key would be
answered with less than was asked, so it is refused too, unless the client says that this shard's
part is what it wants (``Prefer: partial``); the answer's coverage says how much of all it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from modeldefs.kit.answers import groups_outcome, page_outcome
from modeldefs.kit.asks import ONE_SHARD, Ask, Outcome, PageOutcome, Shards, Unchanged, Written
from modeldefs.kit.buckets import BUCKET_COUNT, bucket_of
from modeldefs.kit.exports import Exports
from modeldefs.kit.many import ManyEndpoint
from modeldefs.kit.many_answers import Part, fate_of, refusal
from modeldefs.wire import calls
from modeldefs.wire.deadlines import Deadlines
from modeldefs.wire.problems import DeadlineExceeded, Internal, Problem, WrongShard
from shardnode.guard.keeper import Keeper
from shardnode.runtime.direct_parts import OwnParts
from shardnode.runtime.executor import Executor, Place
from shardnode.runtime.read_parts import TaggedPart

Done = Callable[[Outcome], None]
GRACE_S = 0.1  # the executor knows the deadline too, and is asked first


class _Wait(msgspec.Struct, eq=False):
    """One direct call under way: its outcome, or at its deadline a problem, and only one."""

    ask: Ask
    shards: Shards
    told: Done
    deadline: float  # in the loop's time
    give_up: Callable[[], None] | None = None
    is_over: bool = False

    def on_part(self, part: object) -> None:
        """Hand over what the executor brought."""
        self._end(_outcome(self.ask, part, self.shards))

    def on_deadline(self) -> None:
        """Stop waiting: a backend may hang where no cancel reaches it."""
        if self.give_up is not None:
            self.give_up()
        # A write may still be committed: whoever repeats it may do it twice.
        is_safe = self.ask.idempotency_key != "" or self.ask.prefers.rollback
        unknown = self.ask.plan is None and not is_safe
        self._end(DeadlineExceeded(members={"retryable": False} if unknown else None))

    def _end(self, outcome: Outcome) -> None:
        if not self.is_over:
            self.is_over = True
            self.told(outcome)


class LocalBackend:
    """Answers asks from this shard."""

    is_part = True

    def __init__(self, *, executor: Executor, keeper: Keeper) -> None:
        self._executor = executor
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines()
        self._exports = Exports()

    def submit(self, ask: Ask, done: Done) -> Callable[[], None] | None:
        """Answer the ask by calling ``done`` once."""
        if ask.is_export:
            return self._export(ask, done)
        if isinstance(ask.served.endpoint, ManyEndpoint):
            return self._submit_many(ask.served.endpoint, ask, done)
        try:
            place, shards = self._whereabouts(ask)
        except Problem as problem:
            done(problem)
            return None
        deadline = self._loop.time() + ask.timeout_ms / 1_000
        wait = _Wait(ask, shards, done, deadline + GRACE_S)
        wait.give_up = self._executor.run(
            endpoint=ask.served.endpoint,
            call=ask.call(is_hop=False),
            place=place,
            joined=True,
            deadline=deadline,
            done=wait.on_part,
        )
        if wait.is_over:
            return None
        self._deadlines.watch(wait)
        return wait.give_up

    def cost(self, ask: Ask) -> int:
        """Return 1, as this is one shard; of a batch its items."""
        return len(ask.item_keys()) if ask.served.endpoint.is_many else 1

    def _export(self, ask: Ask, done: Done) -> Callable[[], None] | None:
        parts = OwnParts(
            ask,
            executor=self._executor,
            whereabouts=self._whereabouts,
            owned=lambda: self._keeper.state.view.owned_ranges,
        )
        return self._exports.begin(ask, parts, done)

    def _whereabouts(self, ask: Ask) -> tuple[Place, Shards]:
        place = self._place(ask)
        return place, self._shards(ask, place)

    def _submit_many(
        self, endpoint: ManyEndpoint, ask: Ask, done: Done
    ) -> Callable[[], None] | None:
        """Write a batch whose items are all owned here, or refuse it whole."""
        places = range(len(ask.item_keys()))
        buckets = sorted({int(bucket_of(key)) for key in ask.item_keys()})

        def tell(outcome: Outcome) -> None:
            if isinstance(outcome, Problem):
                is_keyed = ask.idempotency_key != ""
                part = Part(places, fate_of(outcome, may_be_done=is_keyed), problem=outcome)
                outcome = refusal([part], is_keyed=is_keyed)
            done(outcome)

        deadline = self._loop.time() + ask.timeout_ms / 1_000
        wait = _Wait(ask, ONE_SHARD, tell, deadline + GRACE_S)
        try:
            view = self._keeper.state.view
            for bucket in buckets:
                self._keeper.check(bucket, None)
        except Problem as problem:
            wait.on_part(problem)
            return None
        epochs = [view.epochs[bucket] for bucket in buckets]
        call = ask.many_call(places, buckets, epochs, is_hop=False)
        self._executor.run_many(endpoint, call, deadline, wait.on_part)
        if not wait.is_over:
            self._deadlines.watch(wait)
        return None

    def _place(self, ask: Ask) -> Place:
        view = self._keeper.state.view
        if ask.plan is None:
            bucket = bucket_of(ask.values[ask.served.key_parameter])
            self._keeper.check(bucket, None)
            return Place(bucket, view.epochs[bucket], is_local=True)
        route = ask.plan.route
        if route.reach in ("targeted", "list"):
            given = ask.values[route.parameter] if route.parameter else list(route.constants)
            if given.__class__ is str:
                # The executor looks whose it is, now and once more when the row was read.
                bucket = bucket_of(given)
                return Place(bucket, view.epochs[bucket], is_local=True)
            for key in given if isinstance(given, list) else [given]:
                self._keeper.check(bucket_of(str(key)), None)
        return Place(None, 0, is_local=True)

    def _shards(self, ask: Ask, place: Place) -> Shards:
        if ask.plan is None or ask.plan.route.reach != "scatter":
            return ONE_SHARD
        view = self._keeper.state.view
        owned = sum(last - first + 1 for first, last in view.owned_ranges)
        if owned < BUCKET_COUNT and not ask.prefers.partial:
            raise _not_whole(owned, view.map_epoch)
        return Shards(1, 1, owned / BUCKET_COUNT)


def _not_whole(owned: int, map_epoch: int) -> WrongShard:
    """Return the refusal of a call that goes to every shard: this one alone would answer less."""
    return WrongShard(
        f"This call needs every shard, and this node owns {owned} of {BUCKET_COUNT} buckets: ask "
        "the dispatcher, or this node for its part, if the endpoint has any: `Prefer: partial`.",
        members={"map_epoch": map_epoch, "coverage": owned / BUCKET_COUNT, "retryable": False},
    )


def _outcome(ask: Ask, part: object, shards: Shards) -> Outcome:
    if isinstance(part, Problem):
        return part
    if isinstance(part, TaggedPart):
        assert ask.reuse is not None
        ask.reuse.tags = (part.tag,)
        part = part.part
        if part is None:
            return Unchanged(shards)
    if isinstance(part, bytes | calls.Replayed) and ask.served.endpoint.is_many:
        body = part if isinstance(part, bytes) else part.body
        return Written(b"[%b]" % body.replace(b"\n", b","), isinstance(part, calls.Replayed))
    if isinstance(part, bytes):
        return Written(part) if ask.plan is None else PageOutcome(part, None, False, shards)
    if isinstance(part, calls.Replayed):
        return Written(part.body, replayed=True)
    if isinstance(part, calls.GroupPart):
        return groups_outcome(ask, [part], shards)
    if isinstance(part, calls.PagePart):
        return page_outcome(ask, [part], shards)
    return Internal()
