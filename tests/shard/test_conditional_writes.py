"""Writes under a condition on their row: done only where it holds, and no update is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import models

from modeldefs import Document, mutation
from modeldefs.kit.row_versions import row_check, version_of
from modeldefs.wire.calls import ABSENT, ANY_VERSION, Replayed
from tests.shard.served import ALIAS, ServedShard, default_in_new_threads
from tests.shard.test_wireforms_postgres import Sample
from tests.shard.writing import WritingNode, catalog_of, code, keys, writing_node

WRITERS = 50


class Note(Document):
    """Something that several people write to."""

    id = models.BigIntegerField(primary_key=True)
    text = models.TextField(unique=False)
    seen = models.IntegerField(default=0)

    class Meta:
        app_label = "definitions_conditional"
        constraints = [models.UniqueConstraint(fields=["id", "text"], name="note_said_once")]

    class Shard:
        key = "id"


class Leaf(Document):
    """A leaf of a tree: its own key is not what places it."""

    id = models.BigIntegerField(primary_key=True)
    tree = models.TextField()

    class Meta:
        app_label = "definitions_conditional"

    class Shard:
        key = "tree"


@mutation
def put(*, id: int, text: str) -> Note:
    """Create a note."""
    return Note.objects.create(id=id, text=text)


@mutation
def rewrite(*, id: int, text: str) -> Note:
    """Give a note another text."""
    return Note.objects.filter(id=id).update_one(text=text)


@mutation(on=Note)
def mark(*, id: int) -> bool:
    """Count a reader."""
    return Note.objects.filter(id=id).update(seen=models.F("seen") + 1) > 0


@mutation(on=Note)
def mark_named(*, id: int, text: str) -> bool:
    """Count a reader of a note that has this text."""
    return Note.objects.filter(id=id, text=text).update(seen=1) > 0


@mutation(on=Note)
def drop(*, id: int) -> bool:
    """Remove a note."""
    return Note.objects.filter(id=id).delete()[0] > 0


@mutation
def say(*, id: int, text: str) -> Note:
    """Write a note, whether it is there or not: two statements, so it runs as Python."""
    return Note.objects.update_or_create(id=id, defaults={"text": text})[0]


@mutation(on=Leaf)
def fell(*, tree: str, id: int) -> int:
    """Remove a leaf of a tree."""
    return Leaf.objects.filter(tree=tree, id=id).delete()[0]


@mutation
def stretch(*, id: int) -> Sample:
    """Change a row of every type, in Python."""
    Sample.objects.filter(id=id).update(whole=2)
    return Sample.objects.get(id=id)


@mutation
def relabel(*, id: int, label: str) -> Sample:
    """Change a row of every type, in one statement."""
    return Sample.objects.filter(id=id).update_one(label=label)


MODELS = [Note, Leaf, Sample]
ENDPOINTS: list[Any] = [put, rewrite, mark, mark_named, drop, say, fell, stretch, relabel]


@pytest.fixture(scope="module")
def node(shard: ServedShard) -> Iterator[WritingNode]:
    """Return a worker whose threads write to the shard."""
    with (
        default_in_new_threads(shard),
        writing_node(shard, catalog_of(ENDPOINTS, MODELS)) as found,
    ):
        yield found


@pytest.fixture(autouse=True)
def empty(node: WritingNode) -> None:
    """Begin without rows and keys."""
    with psycopg.connect(node.shard.rw_dsn) as connection:
        connection.execute("SELECT set_config('sp.load', 'on', true)")
        connection.execute("DELETE FROM definitions_conditional_note")
        connection.execute("DELETE FROM definitions_conditional_leaf")
        connection.execute(f"DELETE FROM {Sample._meta.db_table}")
        connection.execute("DELETE FROM sp_idempotency")


def notes(node: WritingNode) -> list[tuple[Any, ...]]:
    """Return what is stored."""
    return node.sql("SELECT id, text, seen FROM definitions_conditional_note ORDER BY id")


def version(row: Any) -> str:
    """Return the version of a row that was answered."""
    assert isinstance(row, bytes), row
    return version_of(row).decode()


def put_one(node: WritingNode) -> str:
    """Create note 1 and return its version."""
    return version(node.do("put", given={"id": "1", "text": "first"}))


def test_half_of_them_are_one_statement(node: WritingNode) -> None:
    """Otherwise the tests below would prove one half twice."""
    plans = {
        endpoint.name: node.catalog.write_plan(endpoint, frozenset(endpoint.by_name))
        for endpoint in ENDPOINTS
    }

    assert sorted(name for name, plan in plans.items() if isinstance(plan, str)) == [
        "say",
        "stretch",
    ]


OLD = "0" * 32
TEXT = {"id": "1", "text": "second"}


@pytest.mark.parametrize("key", ["", "a"])
@pytest.mark.parametrize("name", ["rewrite", "say"])
def test_the_version_that_was_answered_is_the_one_that_is_demanded(
    node: WritingNode, name: str, key: str
) -> None:
    """What the front hashes of an answer, Postgres finds in the row: in one statement and in
    Python, and the answer's own version is the next one to demand."""
    first = put_one(node)
    second = version(node.do(name, given=TEXT, key=key, condition=[OLD, first]))
    third = node.do(name, given={"id": "1", "text": "third"}, condition=[second])

    assert first != second
    assert b'"text":"third"' in third
    assert notes(node) == [(1, "third", 0)]


@pytest.mark.parametrize("key", ["", "a"])
@pytest.mark.parametrize("condition", [[OLD], []])
@pytest.mark.parametrize(
    ("name", "given"),
    [("rewrite", TEXT), ("say", TEXT), ("mark", {"id": "1"}), ("drop", {"id": "1"})],
)
def test_another_version_refuses_and_changes_nothing(
    node: WritingNode, name: str, given: dict[str, Any], condition: list[str], key: str
) -> None:
    """412 for every way a write runs; nothing is stored under its key, so it can be tried anew."""
    put_one(node)
    answer = node.do(name, given=given, key=key, condition=condition)

    assert code(answer) == "stale"
    assert (notes(node), keys(node)) == ([(1, "first", 0)], 0)


@pytest.mark.parametrize("condition", [[OLD], [ANY_VERSION]])
@pytest.mark.parametrize(
    ("name", "given"),
    [("rewrite", TEXT), ("say", TEXT), ("mark", {"id": "1"}), ("put", TEXT)],
)
def test_a_row_that_is_not_there_has_no_version(
    node: WritingNode, name: str, given: dict[str, Any], condition: list[str]
) -> None:
    """Any version is demanded of a row that is there: an upsert does not create it."""
    assert code(node.do(name, given=given, condition=condition)) == "stale"
    assert notes(node) == []


def test_any_version_will_do_of_a_row_that_is_there(node: WritingNode) -> None:
    """`If-Match: *`."""
    put_one(node)

    assert node.do("mark", given={"id": "1"}, condition=[ANY_VERSION]) == b"true"
    assert b'"second"' in node.do("say", given=TEXT, condition=[ANY_VERSION])
    assert notes(node) == [(1, "second", 1)]


@pytest.mark.parametrize("key", ["", "a"])
@pytest.mark.parametrize("name", ["put", "say"])
def test_create_only_creates_and_replaces_nothing(node: WritingNode, name: str, key: str) -> None:
    """`If-None-Match: *`: the first is written; the second is stale, not a conflict."""
    given = {"id": "1", "text": "first"}
    made = node.do(name, given=given, condition=[ABSENT])
    again = node.do(name, given=TEXT, key=key, condition=[ABSENT])

    assert b'"first"' in made
    assert code(again) == "stale"
    assert (notes(node), keys(node)) == ([(1, "first", 0)], 0)


@pytest.mark.parametrize("name", ["put", "say"])
def test_of_many_creates_at_once_one_creates(node: WritingNode, name: str) -> None:
    """Those that lose are stale, also where the row came while they ran."""
    answers = node.together(
        *(
            lambda n=n: node.begin(
                name, given={"id": "1", "text": str(n)}, key=f"k{n}", condition=[ABSENT]
            )
            for n in range(WRITERS)
        )
    )
    won = [answer for answer in answers if isinstance(answer, bytes)]

    assert len(won) == 1
    assert [code(answer) for answer in answers if answer not in won] == ["stale"] * (WRITERS - 1)
    assert len(notes(node)) == 1


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("name", ["rewrite", "say"])
def test_of_many_updates_of_one_version_one_wins(
    node: WritingNode, name: str, keyed: bool
) -> None:
    """No update is lost: all others are told that the row has changed under them."""
    first = put_one(node)
    answers = node.together(
        *(
            lambda n=n: node.begin(
                name,
                given={"id": "1", "text": f"by {n}"},
                key=f"k{n}" if keyed else "",
                condition=[first],
            )
            for n in range(WRITERS)
        )
    )
    won = [answer for answer in answers if isinstance(answer, bytes)]

    assert len(won) == 1
    assert [code(answer) for answer in answers if answer not in won] == ["stale"] * (WRITERS - 1)
    assert notes(node)[0][1].encode() in won[0]


def test_both_ways_of_running_lose_no_update_to_each_other(node: WritingNode) -> None:
    """One statement and Python at once, all with the version that was read: one of them wins."""
    put_one(node)
    (row,) = node.sql(f"SELECT {row_version()} FROM definitions_conditional_note")
    answers = node.together(
        *(
            lambda n=n: node.begin(
                "say" if n % 2 else "rewrite",
                given={"id": "1", "text": f"by {n}"},
                condition=[row[0]],
            )
            for n in range(WRITERS)
        )
    )
    won = [answer for answer in answers if isinstance(answer, bytes)]

    assert len(won) == 1
    assert notes(node)[0][1].encode() in won[0]


def row_version() -> str:
    """Return the expression by which Postgres tells a note's version."""
    check = row_check(rewrite)
    assert check is not None
    return check.version


@pytest.mark.parametrize("name", ["rewrite", "say"])
def test_a_repeat_under_its_key_is_replayed_though_the_version_is_gone(
    node: WritingNode, name: str
) -> None:
    """Its own first try changed the row: that is no reason to say that it is stale."""
    first = put_one(node)
    done = node.do(name, given=TEXT, key="a", condition=[first])
    again = node.do(name, given=TEXT, key="a", condition=[first])

    assert again == Replayed(done)
    assert notes(node) == [(1, "second", 0)]


def test_what_the_function_does_not_find_is_not_called_stale(node: WritingNode) -> None:
    """The condition held: the author's own filter left the row out, and the answer says so."""
    first = put_one(node)
    answer = node.do("mark_named", given={"id": "1", "text": "other"}, condition=[first])

    assert answer == b"false"


@pytest.mark.parametrize("name", ["rewrite", "say"])
def test_a_dry_run_is_held_to_its_condition(node: WritingNode, name: str) -> None:
    """And leaves the row as it is either way."""
    first = put_one(node)
    kept = node.do(name, given=TEXT, condition=[first], rollback=True)
    refused = node.do(name, given=TEXT, condition=[OLD], rollback=True)

    assert b'"second"' in kept
    assert code(refused) == "stale"
    assert notes(node) == [(1, "first", 0)]


def test_a_bucket_that_is_not_ours_is_not_called_stale(node: WritingNode) -> None:
    """Its row may be elsewhere: the caller is sent there."""
    put_one(node)

    assert code(node.do("rewrite", given=TEXT, condition=[OLD], epoch=5)) == "wrong-shard"
    assert notes(node) == [(1, "first", 0)]


def test_the_row_is_that_of_the_bucket(node: WritingNode) -> None:
    """A row with this key that another value of the shard key placed is not the one."""
    with psycopg.connect(node.shard.rw_dsn) as connection:
        connection.execute("SELECT set_config('sp.load', 'on', true)")
        connection.execute(
            "INSERT INTO definitions_conditional_leaf (id, tree, bucket) VALUES (1, 'oak', 1)"
        )
    given = {"id": "1", "tree": "oak"}  # whose bucket is another one

    assert code(node.do("fell", given=given, condition=[ANY_VERSION])) == "stale"
    assert node.sql("SELECT count(*) FROM definitions_conditional_leaf") == [(1,)]


@pytest.mark.parametrize("name", ["stretch", "relabel"])
def test_a_row_of_every_type_has_one_version(
    node: WritingNode, django_db_blocker: Any, name: str
) -> None:
    """Durations, doubles, binary, JSON: the answered row's hash is what Postgres compares with."""
    with django_db_blocker.unblock():
        Sample(
            id=1,
            big=2**60,
            ratio=0.1,
            money=Decimal("1.5"),
            flag=True,
            at=datetime(2026, 11, 23, 2, 36, 23, 100000, UTC),
            day=date(2026, 11, 23),
            clock=time(1, 2, 3),
            span=timedelta(days=1, seconds=7_384, microseconds=5),
            key=UUID(int=7),
            seal=b"\x00\xff" * 60,
            papers={"b": [1, 1.5, None, "ü"], "a": {}},
            text='ä "quoted" \n 😀',
        ).save(using=ALIAS)
    given = {"id": "1"} if name == "stretch" else {"id": "1", "label": "x"}
    row = node.do(name, given=given)
    again = node.do(name, given=given, condition=[version(row)])

    assert again == row
