"""The response cache: what is given from it, for how long, and that it never stands in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dispatcher_site.gateway.kept_answers import KeptAnswer, name_of, pack, unpack
from dispatcher_site.gateway.response_cache import ResponseCache
from modeldefs import Cache
from modeldefs.kit.asks import Ask, GroupsOutcome, Outcome, PageOutcome, Shards, Unchanged
from modeldefs.kit.reuse import Reuse
from modeldefs.wire.problems import (
    DeadlineExceeded,
    Forbidden,
    Internal,
    Problem,
    ShardFault,
    ShardUnavailable,
    ShardUntrusted,
)
from tests.unit.gateway.scripted import ask

PATIENCE_S = 20.0
TAGS = ("1" * 16,)
CACHE = Cache(max_age_s=30, stale_if_error_s=30)
PAGE = PageOutcome(b'{"id":"7"}', ["7"], True, Shards(3, 3))
DOWN = ShardUnavailable(shards=[ShardFault("s1", "refused")])


class Memory:
    """A store that answers as the test says."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lives: list[int] = []
        self.is_broken = self.is_silent = False
        self.asked = 0

    async def get(self, name: str) -> bytes | None:
        """Return what is kept."""
        self.asked += 1
        if self.is_silent:
            await asyncio.Event().wait()
        if self.is_broken:
            raise ConnectionError("gone")
        return self.values.get(name)

    async def set(self, name: str, value: bytes, *, ex: int) -> None:
        """Keep it."""
        self.values[name] = value
        self.lives.append(ex)


class Site:
    """A cache between requests and shards that answer what the test says."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.store = Memory()
        self.answers: Callable[[Ask], Outcome] = lambda asked: PAGE
        self.forwarded: list[Ask] = []

    def forward(self, asked: Ask, done: Callable[[Outcome], None]) -> None:
        """Answer as the shards."""
        self.forwarded.append(asked)
        outcome = self.answers(asked)
        assert asked.reuse is not None
        if not isinstance(outcome, Problem):
            asked.reuse.tags = TAGS
        asyncio.get_running_loop().call_soon(done, outcome)

    def play(self, *steps: Callable[[], None], identity: str = "a") -> list[tuple[Outcome, Reuse]]:
        """Return what each request gets, with a step of the test before it."""

        async def run() -> list[tuple[Outcome, Reuse]]:
            cache = ResponseCache(
                self.store, secret=b"s", clock=lambda: self.now, forward=self.forward
            )
            found = []
            for step in steps:
                step()
                asked = ask("get_user", country="Sweden")
                asked.reuse = Reuse(identity, "b" * 16)
                came: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
                cache.submit(asked, CACHE, came.set_result)  # raises if it is told twice
                outcome = await asyncio.wait_for(came, PATIENCE_S)
                await asyncio.gather(*cache._tasks)
                found.append((outcome, asked.reuse))
            return found

        return asyncio.run(run())

    def after(self, seconds: float, outcome: Outcome | None = None) -> Callable[[], None]:
        """Return a step: so much later the shards answer this."""

        def step() -> None:
            self.now += seconds
            if outcome is not None:
                self.answers = lambda asked: outcome

        return step


def test_a_fresh_answer_is_given_without_asking() -> None:
    """With its age and tag, until its time is over; then the shards are asked."""
    site = Site()
    first, hit, stale = site.play(site.after(0), site.after(29.9), site.after(0.1))

    assert [PAGE] * 3 == [first[0], hit[0], stale[0]]
    assert 2 == len(site.forwarded)
    assert (None, 29, None) == (first[1].age_s, hit[1].age_s, stale[1].age_s)
    assert [
        b"shardpoint; fwd=miss; stored",
        b"shardpoint; hit; ttl=1",
        b"shardpoint; fwd=stale; stored",
    ] == [each.note for _, each in (first, hit, stale)]
    assert TAGS == hit[1].tags
    assert [61, 61] == site.store.lives


def test_60_s_serve_and_61_do_not() -> None:
    """While the shards cannot be asked, for as long as was declared and no longer."""
    site = Site()
    _, stale, last, over = site.play(
        site.after(0), site.after(45, DOWN), site.after(15), site.after(1)
    )

    assert [PAGE, PAGE, DOWN] == [stale[0], last[0], over[0]]
    assert [b"shardpoint; hit; ttl=-15", b"shardpoint; hit; ttl=-30"] == [
        stale[1].note, last[1].note
    ]  # fmt: skip
    assert (45, 60, None) == (stale[1].age_s, last[1].age_s, over[1].age_s)


@pytest.mark.parametrize(
    ("problem", "is_given"),
    [
        (DeadlineExceeded(shards=[ShardFault("s1", "deadline-exceeded")]), True),
        (ShardUnavailable(shards=[ShardFault("s1", "quarantined")]), False),
        (ShardUntrusted(shards=[ShardFault("s1", "shard-untrusted")]), False),
        (Forbidden("no"), False),
        (Internal(), False),
    ],
)
def test_only_absent_shards_are_stood_in_for(problem: Problem, is_given: bool) -> None:
    """What is refused is refused; and for a shard that nobody trusts nothing old is given."""
    site = Site()
    _, after = site.play(site.after(0), site.after(31, problem))

    assert (PAGE if is_given else problem) == after[0]


def test_what_the_shards_still_see_is_new_again() -> None:
    """They compare the tags of what is kept: their word makes it fresh, and no query runs."""
    site = Site()
    unchanged = Unchanged(Shards(1, 1))
    _, again, hit = site.play(site.after(0), site.after(31, unchanged), site.after(29))

    assert [PAGE, PAGE] == [again[0], hit[0]]
    assert [TAGS] == [each.reuse.kept for each in site.forwarded[1:] if each.reuse]
    assert b"shardpoint; fwd=stale; fwd-status=304; stored" == again[1].note
    assert 29 == hit[1].age_s


MISSING = Shards(3, 2, 0.75, (ShardFault("s2", "refused"),))


@pytest.mark.parametrize(
    "outcome",
    [
        PageOutcome(b"", None, True, MISSING),
        GroupsOutcome([], MISSING, b"1"),
        PageOutcome(b"x" * 1_048_577, None, False, Shards(1, 1)),
        DOWN,
    ],
)
def test_what_is_not_whole_is_not_kept(outcome: Outcome) -> None:
    """Nor what is too large, nor a problem."""
    site = Site()
    (first,) = site.play(site.after(0, outcome))

    assert outcome == first[0]
    assert {} == site.store.values


def test_groups_are_kept_as_they_are_told() -> None:
    """Their JSON, whatever their cells were."""
    site = Site()
    groups = GroupsOutcome([], Shards(2, 2), b'[{"n":1}]')
    _, hit = site.play(site.after(0, groups), site.after(1))

    assert groups == hit[0]
    assert 1 == len(site.forwarded)


@pytest.mark.parametrize("fault", ["is_broken", "is_silent"])
def test_a_store_that_is_away_stands_in_nobody_s_way(fault: str) -> None:
    """It is asked once, then left alone for a while: the shards answer."""
    site = Site()
    setattr(site.store, fault, True)
    found = site.play(site.after(0), site.after(0), site.after(0))

    assert [PAGE] * 3 == [outcome for outcome, _ in found]
    assert (3, 1) == (len(site.forwarded), site.store.asked)


def test_nothing_is_believed_that_was_not_stored_here() -> None:
    """Another name, another secret, other bytes: none is an answer."""
    kept = KeptAnswer(1.0, 1, b"{}")
    name = name_of(b"s", "a")
    stored = pack(b"s", name, kept)

    assert kept == unpack(b"s", name, stored)
    assert unpack(b"s", name_of(b"s", "b"), stored) is None
    assert unpack(b"t", name, stored) is None
    for at in range(len(stored)):
        assert unpack(b"s", name, stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]) is None
    assert name_of(b"s", "a") != name_of(b"t", "a")


def test_one_caller_s_answers_are_not_another_s() -> None:
    """The identity of an ask has the caller in it, and names what is kept."""
    site = Site()
    site.play(site.after(0), identity="a")
    (other,) = site.play(site.after(0), identity="b")

    assert b"shardpoint; fwd=miss; stored" == other[1].note
    assert 2 == len(site.store.values)
