"""When an ask is sent once more, and by when: the same rules for one shard and for many.

A refusal that says our map is old costs one refresh of it; a connection that broke costs the time
until it is there again, for a node replaces a worker that died and would refuse everything before.
Neither is tried again after the deadline, nor more than ``TRIES_MAX`` times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dispatcher_site.gateway.refusals import MOVED, unsettled
from dispatcher_site.gateway.roads import Roads
from modeldefs.kit.asks import Outcome
from modeldefs.wire.problems import Problem

HOP_MS = 20  # what is kept back of the deadline for our own work
TRIES_MAX = 2
REOPEN_SHARE = 0.25  # of the time left: what a connection gets to be there again

Done = Callable[[Outcome], None]


def can_help(problem: Problem) -> bool:
    """Can the same ask succeed if it is sent again at once?"""
    return problem.code in MOVED or problem.code == "shard-reset"


def try_later(
    problem: Problem,
    again: Callable[[], None],
    roads: Roads,
    *,
    shards: Sequence[str],
    deadline: float,
) -> None:
    """Call ``again`` when what the problem is about may have been mended.

    Args:
        problem: Why the last try failed.
        again: Begins the next one, unless the ask has ended meanwhile.
        roads: To the shards.
        shards: That the next try goes to.
        deadline: When the ask ends, in the loop's time.
    """
    if problem.code in MOVED:
        roads.keeper.refresh_soon().add_done_callback(lambda _: again())
        return
    loop = roads.loop
    now = loop.time()
    reopen_by = now + (deadline - now) * REOPEN_SHARE

    def look() -> None:
        is_open = all(roads.streams.is_open(shard) for shard in shards)
        if is_open or loop.time() >= reopen_by:
            again()
        else:
            loop.call_later(HOP_MS / 1_000, look)

    loop.call_later(HOP_MS / 1_000, look)


def final(problem: Problem, shard: str) -> Problem:
    """Return what the client is told when no further try is made."""
    return unsettled(shard) if problem.code in MOVED else problem
