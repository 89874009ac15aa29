"""A read on a node: ownership is looked at before and after it; a direct one ends in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvloop

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.asks import Outcome
from modeldefs.kit.preferences import NOTHING, Honoured
from modeldefs.wire import calls
from modeldefs.wire.problems import Problem, ShardUnavailable, StaleEpoch, WrongShard
from shardnode.guard.keeper import Keeper
from shardnode.runtime.direct import LocalBackend
from shardnode.runtime.executor import Executor, Place
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.many_writes import ManyWrites
from shardnode.runtime.point_reads import PointReads
from shardnode.runtime.writes import Writes
from tests.unit.gateway.scripted import ask

PATIENCE_S = 20.0


class Rows:
    """A result without rows."""

    ntuples = 0


class HeldLane:
    """A lane, and the point reads of a worker, that answer when the test says so."""

    def __init__(self) -> None:
        self.sent: list[Callable[[], None]] = []
        self.given_up = 0

    def pick(self) -> HeldLane:
        """Return itself."""
        return self

    def send(self, *, done: Callable[[Any, Any], None], **_: Any) -> Callable[[], None]:
        """Hold a statement."""
        self.sent.append(lambda: done(Rows(), None))

        def give_up() -> None:
            self.given_up += 1

        return give_up

    def ask(self, _statement: Any, _values: Any, _deadline: float, done: Any) -> None:
        """Hold a point read."""
        self.sent.append(lambda: done(b""))


class Owned:
    """What the node owns, which a test may change."""

    def __init__(self) -> None:
        self.stamp: object = object()
        self.problem: Problem | None = None

    def check(self, bucket: int, epoch: int) -> None:
        """Refuse what has left."""
        if self.problem is not None:
            raise self.problem

    def check_map(self, epoch: int) -> None:
        """Refuse an old map."""
        self.check(0, epoch)

    def change(self, problem: Problem | None) -> None:
        """Own something else from now on."""
        self.stamp, self.problem = object(), problem


def executor_of(lane: HeldLane, owned: Owned) -> Executor:
    """Return an executor whose statements are held."""
    pool = cast(LanePool, lane)
    return Executor(
        catalog=current_catalog(),
        ownership=owned,
        quick=pool,
        slow=pool,
        points=cast(PointReads, lane),
        writer=cast(Writes, None),
        many=cast(ManyWrites, None),
        shard="s1",
        clock=lambda: 0.0,
    )


# Targeted by a point read and by a page; a scatter; a scatter that adds up.
READS: list[tuple[str, dict[str, str], Place, bool]] = [
    ("get_user", {"id": "7"}, Place(1, 1), True),
    ("get_user", {"id": "7"}, Place(1, 1), False),
    ("get_user", {"country": "Sweden"}, Place(None, 1), False),
    ("count_users", {}, Place(None, 1), False),
]


def _read(
    name: str, given: dict[str, Any], place: Place, joined: bool, change: Callable[[Owned], None]
) -> Any:
    """Return the outcome of a read during which the node's knowledge changed."""
    lane, owned = HeldLane(), Owned()
    endpoint = current_catalog().endpoints[name]
    asked = ask(name, **given)
    outcomes: list[Any] = []
    executor_of(lane, owned).run(
        endpoint=endpoint,
        call=calls.Call(asked.mask, asked.ordered_values(), 50),
        place=place,
        joined=joined,
        deadline=1.0,
        done=outcomes.append,
    )
    assert not outcomes
    change(owned)
    for answer in lane.sent:
        answer()
    (outcome,) = outcomes
    return outcome


@pytest.mark.parametrize(("name", "given", "place", "joined"), READS)
@pytest.mark.parametrize("moved", [WrongShard(), StaleEpoch()])
def test_rows_read_while_their_bucket_left_are_not_answered(
    name: str, given: dict[str, str], place: Place, joined: bool, moved: Problem
) -> None:
    """They may be less than there were: the caller is told that they moved, and asks there."""
    assert _read(name, given, place, joined, lambda owned: owned.change(moved)) is moved


@pytest.mark.parametrize(("name", "given", "place", "joined"), READS)
def test_a_change_elsewhere_costs_no_answer(
    name: str, given: dict[str, str], place: Place, joined: bool
) -> None:
    """What is still owned as the caller believes is answered; so is what nothing happened to."""
    changed = _read(name, given, place, joined, lambda owned: owned.change(None))
    unchanged = _read(name, given, place, joined, lambda _: None)

    assert not isinstance(changed, Problem)
    assert changed == unchanged


# -- direct calls ---------------------------------------------------------------------------------


class DeafExecutor:
    """Takes calls and answers when the test says so, or never."""

    def __init__(self) -> None:
        self.done: Callable[[Any], None] = lambda _: None
        self.given_up = 0

    def run(self, *, done: Callable[[Any], None], **_: Any) -> Callable[[], None]:
        """Take a call."""
        self.done = done

        def give_up() -> None:
            self.given_up += 1

        return give_up


class CountingExecutor(DeafExecutor):
    """Counts the calls that it takes."""

    shard = "s1"
    ran = 0

    def run(self, *, done: Callable[[Any], None], **_: Any) -> Callable[[], None]:
        """Take a call."""
        self.ran += 1
        return super().run(done=done)


class View:
    """Every bucket, at epoch 0."""

    epochs = [0] * 16_384
    owned_ranges = ((0, 16_383),)


class KnowingKeeper:
    """Owns all."""

    class state:  # noqa: N801 - an attribute of the keeper
        """What is known."""

        view = View

    def check(self, bucket: int, epoch: int | None) -> None:
        """Own it."""


class BlindKeeper:
    """Could not read yet what its shard owns."""

    @property
    def state(self) -> Any:
        """Say so."""
        raise ShardUnavailable("This node cannot read what its shard owns.")


class BereftKeeper(KnowingKeeper):
    """Owns nothing any more."""

    def check(self, bucket: int, epoch: int | None) -> None:
        """Say so."""
        raise WrongShard


ROW = {
    "id": "7", "first_name": "A", "last_name": "B", "country": "C", "address": "D", "city": "E",
}  # fmt: skip


def _direct(name: str, *, key: str = "", **given: Any) -> tuple[DeafExecutor, Outcome]:
    """Return what came of a direct call that its executor never answers in time."""
    executor = DeafExecutor()
    outcomes: list[Outcome] = []

    async def run() -> None:
        backend = LocalBackend(
            executor=cast(Executor, executor), keeper=cast(Keeper, KnowingKeeper())
        )
        came = asyncio.Event()

        def done(outcome: Outcome) -> None:
            outcomes.append(outcome)
            came.set()

        backend.submit(ask(name, key=key, timeout_ms=20, **given), done)
        await asyncio.wait_for(came.wait(), PATIENCE_S)
        executor.done(b"late")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    (outcome,) = outcomes
    return executor, outcome


@pytest.mark.parametrize(
    ("name", "given", "key", "retryable"),
    [
        ("get_user", {"id": "7"}, "", True),
        ("count_users", {}, "", True),
        ("insert_user", ROW, "", False),
        ("insert_user", ROW, "client's", True),
    ],
)
def test_a_direct_call_ends_at_its_deadline(
    name: str, given: dict[str, str], key: str, retryable: bool
) -> None:
    """Also where no cancel reaches the backend: 504 once, the statement given up, and what comes
    late dropped. A write without a key may be committed still, so it is not to be repeated."""
    executor, outcome = _direct(name, key=key, **given)

    assert isinstance(outcome, Problem)
    assert (504, "deadline-exceeded") == (outcome.status, outcome.code)
    assert outcome.document()["retryable"] is retryable
    assert executor.given_up == 1


def _refused_direct(keeper: Any, name: str, *, key: str = "", **given: Any) -> dict[str, Any]:
    """Return the problem of a direct call that is refused at once, and nothing was run."""
    outcomes: list[Outcome] = []

    async def run() -> None:
        backend = LocalBackend(executor=cast(Executor, None), keeper=cast(Keeper, keeper))
        backend.submit(ask(name, key=key, **given), outcomes.append)

    asyncio.run(run())
    (outcome,) = outcomes
    assert isinstance(outcome, Problem)
    return outcome.document()


@pytest.mark.parametrize(("key", "fate"), [("", "no"), ("client's", "unknown")])
def test_a_node_that_knows_not_what_it_owns_refuses_direct_writes(key: str, fate: str) -> None:
    """503 for a single one and for a batch, of which nothing is run; what an earlier request under
    the client's key wrote nobody knows."""
    single = _refused_direct(BlindKeeper(), "insert_user", key=key, **ROW)
    many = _refused_direct(
        BlindKeeper(), "insert_users", key=key, **{name: [value] for name, value in ROW.items()}
    )
    written: dict[str, Any] = {"yes": [], "no": [], "unknown": []}

    assert (single["status"], single["code"]) == (503, "shard-unavailable")
    assert (many["status"], many["code"]) == (503, "shard-unavailable")
    assert many["written"] == written | {fate: [[0, 0]]}


@pytest.mark.parametrize(("key", "fate"), [("", "no"), ("client's", "unknown")])
def test_a_direct_repeat_denies_nothing_that_went_to_another_shard(key: str, fate: str) -> None:
    """The bucket left with what was written under the key: this node cannot look there."""
    columns = {name: [value] for name, value in ROW.items()}
    many = _refused_direct(BereftKeeper(), "insert_users", key=key, **columns)

    assert (many["status"], many["code"]) == (421, "wrong-shard")
    assert many["written"] == {"yes": [], "no": [], "unknown": []} | {fate: [[0, 0]]}


class PartKeeper(KnowingKeeper):
    """Owns half of the buckets."""

    class state:  # noqa: N801 - an attribute of the keeper
        """What is known."""

        class view(View):  # noqa: N801 - an attribute of the state
            """The first half."""

            owned_ranges = ((0, 8_191),)
            map_epoch = 4


@pytest.mark.parametrize(
    ("name", "is_export"), [("get_user", False), ("get_user", True), ("count_users", False)]
)
def test_a_part_is_given_to_who_asks_for_one(name: str, is_export: bool) -> None:
    """A call that needs every shard is 421 at a node that owns some buckets only, and nothing is
    run, since it would answer less than was asked; with ``Prefer: partial`` it runs."""
    executor = CountingExecutor()
    told: list[Outcome] = []

    async def run() -> None:
        backend = LocalBackend(
            executor=cast(Executor, executor), keeper=cast(Keeper, PartKeeper())
        )
        for prefers in (NOTHING, Honoured(b"partial", partial=True)):
            asked = ask(name)
            asked.is_export, asked.prefers = is_export, prefers
            backend.submit(asked, told.append)

    asyncio.run(run())
    (refused, *_) = told
    assert isinstance(refused, Problem)
    assert (refused.code, refused.status) == ("wrong-shard", 421)
    assert {"map_epoch": 4, "coverage": 0.5, "retryable": False} == refused.members
    assert executor.ran == 1
