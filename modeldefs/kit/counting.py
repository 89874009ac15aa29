"""How many rows a page's parameters match, beside the page: ``Prefer: count=exact|estimated``.

The count is a read of its own beside the page's: a total over the shards, with all that such a
total has (one shard, some or all of them; other tries; missing shards). A shard that estimates
counts up to a bound and takes the planner's word for what is beyond.

Invariant: a number is called exact only if every shard that the parameters reach has counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import structs

from modeldefs.kit.aggregates import GroupStatement, Measure
from modeldefs.kit.asks import Ask, Backend, Counted, GroupsOutcome, Outcome, PageOutcome
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.preferences import COUNTS
from modeldefs.kit.statements import CountStatement
from modeldefs.kit.wireforms import COUNT
from modeldefs.wire import calls
from modeldefs.wire.http1 import Cancel
from modeldefs.wire.problems import DefinitionFault, Problem

# Of each shard: its rows, and whether that is a guess (0 or 1).
_MEASURES = (
    Measure("rows", COUNT, "sum", nullable=False),
    Measure("guesses", COUNT, "sum", nullable=False),
)
_ABOUT = dict(zip(COUNTS, (calls.COUNT, calls.ESTIMATE), strict=True))


def count_plan(plan: ReadPlan) -> ReadPlan:
    """Return the plan of the count of what a page's plan reads."""
    if plan.counted is None:
        raise DefinitionFault
    counted: CountStatement = plan.counted()
    return ReadPlan(plan.route, groups=GroupStatement(counted.exact, counted.slots, (), _MEASURES))


@dataclass(slots=True)
class CountedPage:
    """A page and its count, both under way; one outcome when both are there."""

    ask: Ask
    done: Callable[[Outcome], None]
    page: PageOutcome | None = None
    count: GroupsOutcome | None = None
    _cancels: list[Cancel | None] = field(default_factory=list)
    _is_over: bool = False

    def begin(self, backend: Backend) -> Cancel:
        """Ask for both."""
        ask = self.ask
        assert ask.plan is not None
        counting = structs.replace(
            ask,
            plan=count_plan(ask.plan),
            limit=0,
            after=None,
            lagging=(),
            trace=None,  # which tells of the page's shards
            about=_ABOUT[ask.prefers.count],
        )
        for each in (ask, counting):
            if not self._is_over:
                self._cancels.append(backend.submit(each, self._on_outcome))
        if self._is_over:
            self.give_up()
        return self.give_up

    def give_up(self) -> None:
        """Stop what still runs."""
        self._is_over = True
        for cancel in self._cancels:
            if cancel is not None:
                cancel()

    def _on_outcome(self, outcome: Outcome) -> None:
        if self._is_over:
            return
        if isinstance(outcome, Problem):
            self.give_up()
            self.done(outcome)
            return
        if isinstance(outcome, PageOutcome):
            self.page = outcome
        elif isinstance(outcome, GroupsOutcome):
            self.count = outcome
        if self.page is not None and self.count is not None:
            self._is_over = True
            self.page.count = counted_of(self.page, self.count)
            self.done(self.page)


def counted_of(page: PageOutcome, count: GroupsOutcome) -> Counted:
    """Return what is told of a count beside a page."""
    (row,) = count.rows
    rows, guesses = (int(cell) for cell in row)
    is_partial = bool(count.shards.missing or page.shards.missing)
    return Counted(rows, guesses == 0 and not is_partial)


def count_member(counted: Counted) -> bytes:
    """Return the member of a page that tells its count."""
    return b'"count":{"value":%d,"exact":%b},' % (
        counted.value,
        b"true" if counted.is_exact else b"false",
    )
