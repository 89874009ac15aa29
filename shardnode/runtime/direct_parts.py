"""Where an export's parts come from on a node that is called directly: from this shard alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from modeldefs.kit.asks import ONE_SHARD, Ask, Shards
from modeldefs.kit.export_merge import Wanted
from modeldefs.kit.exports import OnPart
from modeldefs.wire import calls
from modeldefs.wire.problems import Internal, Problem, ShardUnavailable
from shardnode.runtime.executor import Executor, Outcome, Place


class OwnParts:
    """This shard as the only source of one export."""

    def __init__(
        self,
        ask: Ask,
        *,
        executor: Executor,
        whereabouts: Callable[[Ask], tuple[Place, Shards]],
        owned: Callable[[], object],
    ) -> None:
        self._ask = ask
        self._owned = owned  # what the shard owns now, comparable
        self._owned_first: object = None
        self._executor, self._whereabouts = executor, whereabouts
        self._loop = asyncio.get_running_loop()
        self._give_up: Callable[[], None] | None = None
        self._asked = 0
        self.names = [executor.shard]
        self.shards = ONE_SHARD

    def plan(self) -> int:
        """Ask this shard, if what is asked for is its own."""
        _, self.shards = self._whereabouts(self._ask)
        self._owned_first = self._owned()
        return 1

    def ask(self, wanted: Wanted, timeout_ms: int, on_part: OnPart) -> None:
        """Run one part as a call of its own, with every check that a call has."""
        self._asked += 1
        number = self._asked

        def done(outcome: Outcome) -> None:
            self._loop.call_soon(self._on_outcome, number, outcome, on_part)

        try:
            place, _ = self._whereabouts(self._ask)
            self._check_owned()
        except Problem as moved:
            done(moved)
            return
        call = self._ask.call(is_hop=False)
        call.limit = wanted.rows
        call.after = None if wanted.after is None else list(wanted.after)
        self._give_up = self._executor.run(
            endpoint=self._ask.served.endpoint,
            call=call,
            place=place,
            joined=False,
            deadline=self._loop.time() + timeout_ms / 1_000,
            done=done,
            export=True,
        )

    def forget(self) -> None:
        """Cancel what runs."""
        self._asked += 1
        give_up, self._give_up = self._give_up, None
        if give_up is not None:
            give_up()

    def mend(self, problem: Problem, again: Callable[[], None]) -> bool:
        """There is nobody else to ask."""
        return False

    def final(self, problem: Problem, place: int) -> Problem:
        """Return what the client is told."""
        return problem

    def _on_outcome(self, number: int, outcome: Outcome, on_part: OnPart) -> None:
        if number != self._asked:
            return
        self._give_up = None
        if not isinstance(outcome, Problem):
            try:
                self._check_owned()  # it may have changed while the part was read
            except Problem as moved:
                outcome = moved
        on_part(0, outcome if isinstance(outcome, calls.PagePart | Problem) else Internal())

    def _check_owned(self) -> None:
        """Refuse to go on where the rows that came before were of other buckets."""
        if self._owned() != self._owned_first:
            raise ShardUnavailable("what this node owns has changed")
