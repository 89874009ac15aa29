"""Tags on the way through the dispatcher: every shard compares its own, and all must agree."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from modeldefs.kit.asks import Ask, GroupsOutcome, Outcome, PageOutcome, Unchanged
from modeldefs.kit.conditions import IF_NONE_MATCH, read_tags
from modeldefs.kit.reuse import Reuse
from modeldefs.wire import calls
from modeldefs.wire.problems import Problem
from tests.unit.gateway.scripted import ScriptedStream, ask
from tests.unit.gateway.scripted import outcome_of as single_outcome
from tests.unit.gateway.test_scatter import Answer, Shard, ask_of, everybody, how_many, outcome_of

ONE, TWO, THREE = "1" * 16, "2" * 16, "3" * 16
BASE = "b" * 16


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """Return a loop of the test's own."""
    with asyncio.Runner() as runner:
        yield runner


def tagged(tag: str, *numbers: int, more: bool = False) -> Callable[[calls.Call], Answer]:
    """Answer as a node does whose rows have this tag."""
    part = calls.encode(calls.PagePart([b"%d" % n for n in numbers], [[n] for n in numbers], more))

    def answer(call: calls.Call) -> Answer:
        assert call.tag is not None
        if call.tag == tag:
            told = calls.Tagged(tag, calls.UNCHANGED)
        else:
            told = calls.Tagged(tag, calls.WHOLE, part)
        return calls.TAGGED, calls.encode(told)

    return answer


def always(told: Any) -> Callable[[calls.Call], Answer]:
    """Answer with this, whatever was asked."""
    return lambda call: (calls.TAGGED, calls.encode(told))


def reuse_with(wanted: str) -> Reuse:
    """Return what is known of an ask by a client that has an answer with these tags."""
    return Reuse("i" * 64, BASE, read_tags(IF_NONE_MATCH, f'"{BASE}.{wanted}"'.encode()))


def conditional(wanted: str = "", *, endpoint: Any = everybody) -> Ask:
    """Return an ask to all shards by a client that has an answer with these tags."""
    asked = ask_of(endpoint, is_partial=False)
    asked.reuse = reuse_with(wanted)
    return asked


def tags_of(asked: Ask) -> tuple[str, ...]:
    """Return the tags that the answer is told with."""
    assert asked.reuse is not None
    return tuple(asked.reuse.tags)


def test_the_tag_of_an_answer_is_that_of_every_shard(loop: asyncio.Runner) -> None:
    """In the order of the legs, beside the rows of all."""
    asked = conditional()
    page = outcome_of(
        loop, asked, Shard(tagged(ONE, 1, 5)), Shard(tagged(TWO, 2)), Shard(tagged(THREE))
    )

    assert isinstance(page, PageOutcome)
    assert b"1,2,5" == page.rows
    assert (ONE, TWO, THREE) == tags_of(asked)


def test_unchanged_is_what_every_shard_says(loop: asyncio.Runner) -> None:
    """Each compares the tag in its own place, and no rows travel."""
    shards = [Shard(tagged(ONE, 1)), Shard(tagged(TWO, 2)), Shard(tagged(THREE, 3))]
    asked = conditional(f"{ONE}.{TWO}.{THREE}")
    outcome = outcome_of(loop, asked, *shards)

    assert isinstance(outcome, Unchanged)
    assert (ONE, TWO, THREE) == tags_of(asked)
    assert [[ONE], [TWO], [THREE]] == [[call.tag for call in each.asked] for each in shards]


def test_one_change_brings_the_rows_of_all(loop: asyncio.Runner) -> None:
    """Those that were unchanged are asked again, for rows; the answer is whole, its tags new."""
    first, second, third = (
        Shard(tagged(ONE, 1)),
        Shard(tagged("4" * 16, 2)),
        Shard(tagged(THREE, 3)),
    )
    asked = conditional(f"{ONE}.{TWO}.{THREE}")
    page = outcome_of(loop, asked, first, second, third)

    assert isinstance(page, PageOutcome)
    assert b"1,2,3" == page.rows
    assert (ONE, "4" * 16, THREE) == tags_of(asked)
    assert [[ONE, ""], [TWO], [THREE, ""]] == [
        [call.tag for call in each.asked] for each in (first, second, third)
    ]


def test_a_change_between_two_questions_is_told(loop: asyncio.Runner) -> None:
    """The tag is that of the rows that are given, not of those that were not."""
    answers = iter((tagged(ONE, 1), tagged("5" * 16, 1, 7)))
    first = Shard(lambda call: next(answers)(call))
    asked = conditional(f"{ONE}.{TWO}.{THREE}")
    page = outcome_of(loop, asked, first, Shard(tagged("4" * 16, 2)), Shard(tagged("6" * 16, 3)))

    assert isinstance(page, PageOutcome)
    assert b"1,2,3,7" == page.rows
    assert ("5" * 16, "4" * 16, "6" * 16) == tags_of(asked)


def test_groups_have_tags_too(loop: asyncio.Runner) -> None:
    """Totals are added up of what was tagged."""

    def total(tag: str, number: int) -> Shard:
        part = calls.encode(calls.GroupPart([[number]]))
        return Shard(always(calls.Tagged(tag, calls.WHOLE, part)))

    asked = conditional(endpoint=how_many)
    outcome = outcome_of(loop, asked, total(ONE, 3), total(TWO, 4), total(THREE, 5))

    assert isinstance(outcome, GroupsOutcome)
    assert [[12]] == outcome.rows
    assert (ONE, TWO, THREE) == tags_of(asked)


ODD = [
    calls.Tagged("", calls.UNCHANGED),
    calls.Tagged(TWO, calls.UNCHANGED),  # not the tag that it was asked to compare
    calls.Tagged(ONE, 200, b"\xff"),
    calls.Tagged(ONE, 503),
    calls.Tagged(ONE, 226, b""),
    ["odd"],
]


@pytest.mark.parametrize("told", ODD)
def test_an_odd_tag_is_no_answer(loop: asyncio.Runner, told: Any) -> None:
    """A shard that says what no node of ours would say is not believed."""
    asked = conditional(f"{ONE}.{TWO}.{THREE}")
    outcome = outcome_of(
        loop, asked, Shard(always(told)), Shard(tagged("4" * 16, 2)), Shard(tagged(THREE, 3))
    )
    unasked = outcome_of(
        loop, ask_of(everybody, is_partial=False),
        Shard(always(calls.Tagged(ONE, 200, b""))), Shard(always(told)), Shard(always(told)),
    )  # fmt: skip

    for each in (outcome, unasked):
        assert isinstance(each, Problem)
        assert "shard-untrusted" == each.code


def _one(told: Any, wanted: str = "", status: int = calls.TAGGED) -> tuple[Outcome, Ask]:
    asked = ask("get_user", id="7")
    asked.reuse = reuse_with(wanted)
    stream = ScriptedStream(deque([(status, calls.encode(told))]))
    return single_outcome(asked, s1=stream), asked


def test_one_shard_answers_with_its_tag_alone() -> None:
    """Rows as they came, joined; a page behind which there is more; or nothing new."""
    joined, first = _one(calls.Tagged(ONE, calls.WHOLE, b'{"id":"7"}'))
    part = calls.encode(calls.PagePart([b'{"id":"7"}'], [["7"]], True))
    longer, second = _one(calls.Tagged(TWO, calls.MORE, part))
    unchanged, third = _one(calls.Tagged(THREE, calls.UNCHANGED), THREE)

    assert isinstance(joined, PageOutcome)
    assert isinstance(longer, PageOutcome)
    assert [(b'{"id":"7"}', False), (b'{"id":"7"}', True)] == [
        (each.rows, each.more) for each in (joined, longer)
    ]
    assert isinstance(unchanged, Unchanged)
    assert [(ONE,), (TWO,), (THREE,)] == [tags_of(each) for each in (first, second, third)]


@pytest.mark.parametrize("told", ODD[:2] + ODD[3:])
def test_an_odd_tag_of_one_shard_is_no_answer(told: Any) -> None:
    """As of several."""
    outcome, _ = _one(told, ONE)

    assert isinstance(outcome, Problem)
    assert "shard-untrusted" == outcome.code
