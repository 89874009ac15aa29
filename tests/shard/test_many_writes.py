"""A batch on one shard: all its items are written by one statement, or none is."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import models
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldefs import Document, mutation
from modeldefs.kit.buckets import bucket_of
from modeldefs.kit.many import ManyEndpoint
from modeldefs.wire.calls import Replayed
from modeldefs.wire.problems import Problem
from tests.shard.writing import WritingNode, code, keys


class Box(Document):
    """Something that is written, many at once."""

    id = models.BigIntegerField(primary_key=True)
    name = models.TextField()
    label = models.CharField(max_length=5, null=True)
    count = models.SmallIntegerField(default=7)
    kind = models.TextField(default="plain")
    parent = models.ForeignKey("self", models.DO_NOTHING, null=True, db_constraint=False)

    class Meta:
        app_label = "definitions_many"
        constraints = [
            models.CheckConstraint(condition=models.Q(count__gte=0), name="box_counts"),
        ]

    class Shard:
        key = "id"


class Leaf(Document):
    """Something placed by another field than its primary key."""

    code = models.TextField(primary_key=True)
    tree = models.TextField()
    length = models.FloatField(null=True)
    on = models.DateTimeField(null=True)

    class Meta:
        app_label = "definitions_many"

    class Shard:
        key = "tree"


@mutation(many="put_boxes")
def put_box(*, id: int, name: str, label: str | None = None, count: int = 3) -> Box:
    """Create a box."""
    return Box.objects.create(id=id, name=name, label=label, count=count)


@mutation(many="sort_boxes")
def sort_box(*, id: int, name: str, label: str | None = None) -> Box:
    """Create a box of another kind where it has no label."""
    if label is None:
        return Box.objects.create(id=id, name=name, label="none", kind="bare")
    return Box.objects.create(id=id, name=name, label=label)


@mutation(many="grow_leaves")
def grow_leaf(
    *, code: str, tree: str, length: float | None = None, on: datetime | None = None
) -> Leaf:
    """Create a leaf."""
    return Leaf.objects.create(code=code, tree=tree, length=length, on=on)


MODELS = [Box, Leaf]
SINGLES: list[Any] = [put_box, sort_box, grow_leaf]
ENDPOINTS: list[Any] = [*SINGLES, *(ManyEndpoint(single) for single in SINGLES)]


@pytest.fixture(autouse=True)
def empty(node: WritingNode) -> None:
    """Begin without rows and keys, every bucket ours."""
    clear(node)


def clear(node: WritingNode) -> None:
    """Remove all rows and keys."""
    with psycopg.connect(node.shard.rw_dsn) as connection:
        connection.execute("SELECT set_config('sp.load', 'on', true)")
        for table in ("box", "leaf"):
            connection.execute(f"DELETE FROM definitions_many_{table}")
        connection.execute("DELETE FROM sp_idempotency")


def boxes(node: WritingNode) -> list[tuple[Any, ...]]:
    """Return what is stored."""
    return node.sql("SELECT id, name FROM definitions_many_box ORDER BY id")


def some(*numbers: int) -> list[dict[str, Any]]:
    """Return items with these ids."""
    return [{"id": str(n), "name": f"box {n}"} for n in numbers]


def pointers(answer: Any) -> list[str | None]:
    """Return where a problem points."""
    assert isinstance(answer, Problem), answer

    return [error.pointer for error in answer.errors]


def test_a_thousand_items_are_rows_in_their_order(node: WritingNode) -> None:
    """Each row is answered at its item's place, and lies in the bucket of its key."""
    numbers = [(n * 7919) % 1_000_003 for n in range(1, 1_001)]
    answer = node.do_many("put_boxes", some(*numbers), key="a")
    rows = [json.loads(row) for row in answer.split(b"\n")]

    assert [row["id"] for row in rows] == [str(n) for n in numbers]
    assert {row["count"] for row in rows} == {3}
    assert len(boxes(node)) == 1_000
    assert keys(node) == 1


def test_a_conflict_leaves_nothing_and_names_the_items(node: WritingNode) -> None:
    """One stored row refuses the whole batch, with a key and without; no key is stored."""
    node.do("put_box", given={"id": "3", "name": "first"})
    for key in ("", "a"):
        answer = node.do_many("put_boxes", some(1, 2, 3, 4), key=key)

        assert code(answer) == "conflict"
        assert pointers(answer) == ["/items/2"]
        assert [row[0] for row in boxes(node)] == [3]
        assert keys(node) == 0


def test_an_item_given_twice_is_a_conflict(node: WritingNode) -> None:
    """The second of the two is named, and neither is written."""
    answer = node.do_many("put_boxes", some(1, 2, 1))

    assert code(answer) == "conflict"
    assert pointers(answer) == ["/items/2"]
    assert boxes(node) == []


@pytest.mark.parametrize("label", ["too long", "ok"])
def test_a_value_that_the_column_refuses_leaves_nothing(node: WritingNode, label: str) -> None:
    """Too long for its column, or against a constraint: the whole batch is refused."""
    items = some(1, 2, 3)
    items[1] |= {"label": label, "count": "-1"}
    answer = node.do_many("put_boxes", items, key="a")

    assert code(answer) == "invalid-request"
    assert (boxes(node), keys(node)) == ([], 0)


def test_a_repeat_under_a_key_gives_the_stored_rows(node: WritingNode) -> None:
    """It writes nothing, also after the rows were changed."""
    first = node.do_many("put_boxes", some(1, 2), key="a")
    with psycopg.connect(node.shard.rw_dsn) as connection:
        connection.execute("SELECT set_config('sp.load', 'on', true)")
        connection.execute("UPDATE definitions_many_box SET name = 'other'")
    again = node.do_many("put_boxes", some(1, 2), key="a")

    assert again == Replayed(first)
    assert {row[1] for row in boxes(node)} == {"other"}
    assert keys(node) == 1


def test_a_key_used_for_other_items_is_refused(node: WritingNode) -> None:
    """Under one key there is one batch; nothing of the second is written."""
    node.do_many("put_boxes", some(1, 2), key="a")
    answer = node.do_many("put_boxes", [*some(1), *some(2)], key="a", fingerprint=b"other")

    assert code(answer) == "idempotency-key-reused"
    assert len(boxes(node)) == 2


def test_many_at_once_with_one_key_write_once(node: WritingNode) -> None:
    """One does it; the others are answered what it answered."""
    answers = node.together(
        *[lambda: node.begin_many("put_boxes", some(*range(1, 30)), key="a")] * 10
    )

    written = [each for each in answers if isinstance(each, bytes)]
    assert len(written) == 1
    assert [each for each in answers if isinstance(each, Replayed)] == [Replayed(written[0])] * 9
    assert len(boxes(node)) == 29


@pytest.mark.parametrize("key", ["a", ""])
def test_one_bucket_that_is_not_ours_refuses_all(node: WritingNode, key: str) -> None:
    """At another epoch, or on its way to another shard: nothing is written, no key kept."""
    assert code(node.do_many("put_boxes", some(1, 2, 3), key=key, epoch=5)) == "wrong-shard"
    with node.leaving(bucket_of("2")):
        answer = node.do_many("put_boxes", some(1, 2, 3), key=key)

    assert code(answer) == "wrong-shard"
    assert (boxes(node), keys(node)) == ([], 0)


def test_the_buckets_must_be_those_of_the_items(node: WritingNode) -> None:
    """A dispatcher that groups wrongly stores no row in a bucket that was not checked."""
    answer = node.do_many("put_boxes", some(1, 2), buckets=[1, 2])

    assert code(answer) == "invalid-request"
    assert boxes(node) == []


def test_items_that_need_another_insert_share_the_statement(node: WritingNode) -> None:
    """By which parameters are given the author creates differently: all in one, in their order."""
    items = some(4, 3, 2, 1)
    items[0]["label"] = items[3]["label"] = "x"
    answer = node.do_many("sort_boxes", items, key="a")
    rows = [json.loads(row) for row in answer.split(b"\n")]

    assert [(row["id"], row["label"], row["kind"]) for row in rows] == [
        ("4", "x", "plain"),
        ("3", "none", "bare"),
        ("2", "none", "bare"),
        ("1", "x", "plain"),
    ]
    items[1]["id"] = "9"
    assert code(node.do_many("sort_boxes", items)) == "conflict"
    assert len(boxes(node)) == 4


def test_a_batch_waits_for_no_row_for_ever(node: WritingNode) -> None:
    """A row that another writes now: the wait ends, and nothing was written."""
    with psycopg.connect(node.shard.rw_dsn) as other:
        other.execute("SELECT set_config('sp.load', 'on', true)")
        other.execute(
            "INSERT INTO definitions_many_box (id, name, count, kind, bucket)"
            " VALUES (2, 'x', 1, 'x', 1)"
        )
        waited = [node.do_many("put_boxes", some(1, 2), key=key) for key in ("", "a")]
        late = node.do_many("put_boxes", some(1, 2), deadline_s=0.05)
        other.rollback()

    assert [code(answer) for answer in waited] == ["transaction-conflict", "in-flight"]
    assert code(late) == "deadline-exceeded"
    assert (boxes(node), keys(node)) == ([], 0)


@pytest.mark.parametrize(("key", "is_replay"), [("a", True), ("", False)])
def test_a_commit_whose_answer_is_lost_is_asked_again_only_under_a_key(
    node: WritingNode, key: str, is_replay: bool
) -> None:
    """With a key it happens once and is answered; without one nobody may say whether it did."""

    async def cut() -> Any:
        asked = node.begin_many("put_boxes", some(1, 2), key=key)
        await asyncio.sleep(0)
        while not boxes(node):
            pass
        lanes: Any = node.many
        for lane in lanes._lanes._lanes:
            lane._lose()
        return await asked

    answer = node.run(cut())

    assert isinstance(answer, Replayed) if is_replay else code(answer) == "shard-reset"
    assert len(boxes(node)) == 2


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12)
EDGES = ["", "NULL", "null", '"', "\\", '\\"', "{", "},{", "\n", ","]
NASTY = st.one_of(TEXTS, st.sampled_from(EDGES))
LEAVES = st.lists(
    st.fixed_dictionaries(
        {"code": NASTY, "tree": st.sampled_from(["oak", "elm", "ash", "é", ""])},
        optional={
            "length": st.floats(allow_nan=False, allow_infinity=False).map(repr),
            "on": st.datetimes(timezones=st.just(UTC))
            .filter(lambda at: 2 < at.year < 9998)
            .map(datetime.isoformat),
        },
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda item: item["code"],
)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"id": st.integers(-(2**63), 2**63 - 1).map(str), "name": NASTY},
        optional={"label": NASTY.map(lambda text: text[:5])},
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda item: item["id"],
)


def _sameness(node: WritingNode, one: str, many: str, table: str, items: list[Any]) -> None:
    stored = f"SELECT * FROM definitions_many_{table} ORDER BY 2"
    clear(node)
    rows = [node.do(one, given=item) for item in items]
    singly = node.sql(stored)
    clear(node)
    answer = node.do_many(many, items, key="a")

    assert answer == b"\n".join(rows)
    assert node.sql(stored) == singly
    assert node.do_many(many, items, key="a") == Replayed(answer)


@settings(max_examples=60)
@given(items=LEAVES)
def test_a_batch_is_what_its_items_one_by_one_are(node: WritingNode, items: list[Any]) -> None:
    """The same rows are stored and answered, byte for byte, whatever the texts hold."""
    _sameness(node, "grow_leaf", "grow_leaves", "leaf", items)


@settings(max_examples=60)
@given(items=ITEMS, of=st.sampled_from([("put_box", "put_boxes"), ("sort_box", "sort_boxes")]))
def test_so_it_is_where_items_need_different_inserts(
    node: WritingNode, items: list[Any], of: tuple[str, str]
) -> None:
    """With defaults, nulls, and a create that differs by what is given."""
    _sameness(node, *of, "box", items)
