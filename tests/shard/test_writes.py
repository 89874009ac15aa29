"""One statement per write: it happens once or not at all, and only where it may."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import pytest
from django.db import models
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldefs import Document, Reference, mutation
from modeldefs.kit.statements import LIMIT_SLOT, page_statement
from modeldefs.wire.calls import Replayed
from shardnode.runtime.forgetting import Forgetting, ForgettingLimits
from shardnode.runtime.lanes import SESSION_SETTINGS
from shardnode.runtime.rows import RowEncoder
from tests.shard.served import ALIAS
from tests.shard.test_wireforms_postgres import Sample
from tests.shard.writing import WritingNode, code, keys


class Colour(Reference):
    """A colour, on every shard."""

    name = models.TextField(primary_key=True)

    class Meta:
        app_label = "definitions_one_statement"


class Thing(Document):
    """Something that is written."""

    id = models.BigIntegerField(primary_key=True)
    name = models.TextField()
    label = models.CharField(max_length=5, null=True)
    count = models.SmallIntegerField(default=0)
    colour = models.ForeignKey(Colour, models.DO_NOTHING, null=True, related_name="+")

    class Meta:
        app_label = "definitions_one_statement"
        constraints = [
            models.UniqueConstraint(fields=["id", "name"], name="thing_named_once"),
            models.CheckConstraint(condition=models.Q(count__gte=0), name="thing_counts"),
        ]

    class Shard:
        key = "id"


@mutation
def put(
    *,
    id: int,
    name: str,
    label: str | None = None,
    count: int = 0,
    colour_id: str | None = None,
) -> Thing:
    """Create a thing."""
    return Thing.objects.create(id=id, name=name, label=label, count=count, colour_id=colour_id)


@mutation(on=Thing)
def rename(*, id: int, name: str) -> bool:
    """Rename a thing."""
    return Thing.objects.filter(id=id).update(name=name) > 0


@mutation
def relabel(*, id: int, label: str | None = None) -> Thing:
    """Give a thing that is there another label."""
    return Thing.objects.filter(id=id).update_one(label=label)


@mutation(on=Thing)
def remove(*, id: int) -> int:
    """Remove a thing."""
    return Thing.objects.filter(id=id).delete()[0]


@mutation(on=Thing)
def remove_named(*, id: int, name: str) -> int:
    """Remove whatever has a name: rows of other buckets too, which is refused."""
    return Thing.objects.filter(name=name).delete()[0]


@mutation(on=Thing)
def paint(*, id: int, name: str) -> int:
    """Write a reference model, which is refused."""
    return Colour.objects.filter(name=name).delete()[0]


@mutation
def touch(*, id: int, label: str) -> Sample:
    """Change one column of a row that has one of every type, and answer the row."""
    return Sample.objects.filter(id=id).update_one(label=label)


MODELS = [Colour, Thing, Sample]
ENDPOINTS: list[Any] = [put, rename, relabel, remove, remove_named, paint, touch]


@pytest.fixture(autouse=True)
def empty(node: WritingNode) -> None:
    """Begin without rows and keys."""
    with psycopg.connect(node.shard.rw_dsn) as connection:
        connection.execute("SELECT set_config('sp.load', 'on', true)")
        for table in ("thing", "colour"):
            connection.execute(f"DELETE FROM definitions_one_statement_{table}")
        connection.execute("INSERT INTO definitions_one_statement_colour VALUES ('red')")
        connection.execute("DELETE FROM sp_idempotency")


def things(node: WritingNode) -> list[tuple[Any, ...]]:
    """Return what is stored, and how many keys."""
    return node.sql("SELECT id, name FROM definitions_one_statement_thing ORDER BY id")


ONE = {"id": "1", "name": "one"}
ROW = b'{"id":"1","name":"one","label":null,"count":0,"colour_id":null}'


def test_every_mutation_here_is_one_statement(node: WritingNode) -> None:
    """Otherwise the tests below would prove nothing of it."""
    for endpoint in ENDPOINTS:
        given = frozenset(spec.name for spec in endpoint.parameters)

        assert not isinstance(node.catalog.write_plan(endpoint, given), str)


def test_create_update_delete(node: WritingNode) -> None:
    """Each answers what the author's Python would, as JSON."""
    assert node.do("put", given=ONE) == ROW
    assert node.do("rename", given={"id": "1", "name": "two"}) == b"true"
    assert node.do("rename", given={"id": "2", "name": "two"}) == b"false"
    assert things(node) == [(1, "two")]
    assert node.do("relabel", given={"id": "1", "label": "x"}) == (
        b'{"id":"1","name":"two","label":"x","count":0,"colour_id":null}'
    )
    assert node.do("remove", given={"id": "1"}) == b"1"
    assert node.do("remove", given={"id": "1"}) == b"0"
    assert things(node) == []


def test_a_null_is_stored_as_null(node: WritingNode) -> None:
    """JSON null of a nullable column is None, whatever is absent or present beside it."""
    node.do("put", given={**ONE, "label": "x"})
    answer = node.do("relabel", given={"id": "1", "label": None})

    assert answer == ROW


def test_a_repeat_under_a_key_gives_the_stored_answer(node: WritingNode) -> None:
    """It writes nothing, also where it would have failed or done something else."""
    first = node.do("put", given=ONE, key="a")
    node.do("rename", given={"id": "1", "name": "other"})
    again = node.do("put", given=ONE, key="a")

    assert (first, again) == (ROW, Replayed(ROW))
    assert things(node) == [(1, "other")]
    assert keys(node) == 1
    assert node.do("remove", given={"id": "7"}, key="b") == b"0"
    assert node.do("remove", given={"id": "7"}, key="b") == Replayed(b"0")


def test_a_key_is_the_principals_and_the_endpoints_own(node: WritingNode) -> None:
    """Another principal, endpoint or kind of key has keys of its own."""
    node.do("put", given=ONE, key="a")
    others = [
        node.do("remove", given={"id": "1"}, key="a"),
        node.do("put", given=ONE, key="a", principal="k2"),
        node.do("put", given=ONE, key="b"),
        node.do("remove", given={"id": "1"}, key="a", hop=True),
    ]

    assert [others[0], others[3]] == [b"1", b"1"]
    assert others[1] == ROW
    assert code(others[2]) == "conflict"


def test_a_key_used_for_something_else_is_refused(node: WritingNode) -> None:
    """Other parameters under the same key are a client's mistake, and change nothing."""
    node.do("put", given=ONE, key="a")
    answer = node.do("put", given={"id": "1", "name": "x"}, key="a", fingerprint=b"other")

    assert code(answer) == "idempotency-key-reused"
    assert things(node) == [(1, "one")]


def test_what_is_refused_leaves_no_key(node: WritingNode) -> None:
    """A rollback takes the key along: the next try is a try."""
    node.do("put", given=ONE)
    refused = node.do("put", given=ONE, key="a")

    assert code(refused) == "conflict"
    assert keys(node) == 0

    node.do("remove", given={"id": "1"})

    assert node.do("put", given=ONE, key="a") == ROW


def test_many_at_once_with_one_key_write_one_row(node: WritingNode) -> None:
    """In one batch or over several lanes: one does it, the others are told what it answered."""
    answers = node.together(*[lambda: node.begin("put", given=ONE, key="a")] * 50)

    assert [ROW] == [each for each in answers if isinstance(each, bytes)]
    assert [Replayed(ROW)] * 49 == [each for each in answers if isinstance(each, Replayed)]
    assert things(node) == [(1, "one")]


def test_a_failing_write_takes_no_other_of_its_batch_with_it(node: WritingNode) -> None:
    """Writes of one tick share a transaction; whoever fails, fails alone."""
    node.do("put", given=ONE)
    given = [{"id": str(n), "name": "n"} for n in range(1, 41)]
    answers = node.together(*[lambda g=g: node.begin("put", given=g, key=g["id"]) for g in given])

    assert code(answers[0]) == "conflict"
    assert all(isinstance(answer, bytes) for answer in answers[1:])
    assert len(things(node)) == 40
    assert keys(node) == 39


def test_a_foreign_key_that_fails_at_the_commit_takes_none_with_it(node: WritingNode) -> None:
    """Constraints that wait for the commit are found there, and laid to whose they are."""
    given = [{"id": str(n), "name": "n", "colour_id": "red"} for n in range(1, 9)]
    given[3]["colour_id"] = "blue"
    answers = node.together(*[lambda g=g: node.begin("put", given=g) for g in given])

    assert code(answers[3]) == "conflict"
    assert [row[0] for row in things(node)] == [1, 2, 3, 5, 6, 7, 8]


def test_each_statement_of_a_batch_has_its_own_bucket(node: WritingNode) -> None:
    """The guard sees the bucket of the statement that runs, not of one before it."""
    node.do("put", given={"id": "1", "name": "same"})
    node.do("put", given={"id": "2", "name": "same"})
    answers = node.together(
        lambda: node.begin("rename", given={"id": "2", "name": "x"}),
        lambda: node.begin("remove_named", given={"id": "1", "name": "x"}),
        lambda: node.begin("put", given={"id": "3", "name": "three"}),
    )

    assert [answers[0], code(answers[1])] == [b"true", "definition-fault"]
    assert things(node) == [(1, "same"), (2, "x"), (3, "three")]


def test_a_bucket_that_is_not_ours_is_not_written(node: WritingNode) -> None:
    """At another epoch, and while it leaves: refused, and nothing changed."""
    answer = node.do("put", given=ONE, key="a", epoch=5)

    assert code(answer) == "wrong-shard"
    assert (things(node), keys(node)) == ([], 0)


def test_a_bucket_must_be_that_of_the_key(node: WritingNode) -> None:
    """A dispatcher that routes wrongly stores no row in a foreign bucket."""
    answer = node.do("put", given=ONE, bucket=1)

    assert code(answer) == "invalid-request"
    assert things(node) == []


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("put", {"id": "1", "name": "x", "label": "too long"}, "invalid-request"),
        ("put", {"id": "1", "name": "x", "count": "-1"}, "invalid-request"),
        ("put", {"id": "1", "name": "x", "count": "99999"}, "invalid-request"),
        ("put", {"id": "1", "name": "x", "colour_id": "blue"}, "conflict"),
        ("relabel", {"id": "9", "label": "x"}, "not-found"),
        ("paint", {"id": "1", "name": "red"}, "definition-fault"),
    ],
)
def test_refusals_of_the_database(
    node: WritingNode, name: str, given: dict[str, Any], expected: str
) -> None:
    """Each is the problem that the same mutation in Python gives, and leaves nothing behind."""
    answers = [node.do(name, given=given), node.do(name, given=given, key="a")]

    assert [code(answer) for answer in answers] == [expected] * 2
    assert (things(node), keys(node)) == ([], 0)


def test_a_row_that_another_holds_is_not_waited_for_for_ever(node: WritingNode) -> None:
    """The wait ends and says that another try may do; a client with a key is told of it."""
    node.do("put", given=ONE)
    with psycopg.connect(node.shard.rw_dsn) as other:
        other.execute("SELECT FROM definitions_one_statement_thing FOR UPDATE")
        waited = [node.do("rename", given={"id": "1", "name": "x"}, key=key) for key in ("", "a")]

    assert [code(answer) for answer in waited] == ["transaction-conflict", "in-flight"]
    assert things(node) == [(1, "one")]


def test_a_deadline_ends_a_write_that_waits(node: WritingNode) -> None:
    """It is cancelled, and so surely not done."""
    node.do("put", given=ONE)
    with psycopg.connect(node.shard.rw_dsn) as other:
        other.execute("SELECT FROM definitions_one_statement_thing FOR UPDATE")
        answer = node.do("rename", given={"id": "1", "name": "x"}, deadline_s=0.05)

    assert code(answer) == "deadline-exceeded"
    assert things(node) == [(1, "one")]


@pytest.mark.parametrize("key", ["a", ""])
def test_a_backend_that_is_ended_while_it_writes_costs_another_try(
    node: WritingNode, key: str
) -> None:
    """It took back what it did, so the write is done by another lane, with a key or without."""
    with psycopg.connect(node.shard.rw_dsn) as other:
        other.execute("LOCK TABLE definitions_one_statement_thing IN SHARE MODE")

        async def cut() -> Any:
            asked = node.begin("put", given=ONE, key=key)
            await node.loop.run_in_executor(None, end_those_that_wait, node, other)
            other.rollback()
            return await asked

        answer = node.run(cut())

    assert answer == ROW
    assert things(node) == [(1, "one")]


def end_those_that_wait(node: WritingNode, other: psycopg.Connection[Any]) -> None:
    """Wait until a lane waits for a lock, and end its backend."""
    waiting = (
        " FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND usename = current_user AND pid <> %s"
    )
    mine = other.info.backend_pid
    while not node.sql("SELECT 1" + waiting, mine):
        pass
    node.sql("SELECT pg_terminate_backend(pid)" + waiting, mine)


@pytest.mark.parametrize(("key", "expected"), [("a", Replayed(ROW)), ("", "shard-reset")])
def test_a_commit_whose_answer_is_lost_is_asked_again_only_under_a_key(
    node: WritingNode, key: str, expected: Any
) -> None:
    """With a key it happens once and is answered; without one nobody may say whether it did."""

    async def cut() -> Any:
        asked = node.begin("put", given=ONE, key=key)
        # The batch has left and is committed, but the loop has not read a byte of the answer.
        await asyncio.sleep(0)
        while not things(node):
            pass
        lanes: Any = node.writes
        for lane in lanes._lanes._lanes:
            lane._lose()
        return await asked

    answer = node.run(cut())

    assert (answer if isinstance(answer, Replayed) else code(answer)) == expected
    assert things(node) == [(1, "one")]


def test_keys_are_forgotten_when_their_time_has_passed(node: WritingNode) -> None:
    """A walk of several steps finds all that are old, and no other; a client's live longer."""
    for key, hop, age in (("a", 1, 700), ("b", 1, 500), ("c", 0, 80_000), ("d", 0, 90_000)):
        node.do("remove", given={"id": "1"}, key=key, hop=bool(hop))
        node.sql(
            "WITH one AS (DELETE FROM sp_idempotency WHERE created > now() - interval '300 s'"
            " RETURNING *) INSERT INTO sp_idempotency (bucket, scope, fingerprint, hop, body,"
            " created) SELECT bucket, scope, fingerprint, hop, body, now() - %s * interval '1 s'"
            " FROM one",
            age,
        )

    async def forget() -> None:
        limits = ForgettingLimits(pages_per_step=1, pause_s=0.001, pause_busy_s=0.001)
        walk = Forgetting(node.writes._lanes, limits)
        walk.start()
        while keys(node) > 2:
            await asyncio.sleep(0)
        walk.stop()

    node.run(forget())
    kept = [node.do("remove", given={"id": "1"}, key=k, hop=h) for k, h in (("b", 1), ("c", 0))]

    assert kept == [Replayed(b"0")] * 2


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "whole": st.integers(-(2**31), 2**31 - 1),
        "tiny": st.integers(-(2**15), 2**15 - 1),
        "big": st.integers(-(2**63), 2**63 - 1),
        "ratio": st.floats(),
        "money": st.decimals(-(10**20), 10**20, allow_nan=False, allow_infinity=False, places=4),
        "flag": st.booleans(),
        "at": st.datetimes(timezones=st.timezones()).filter(lambda at: 2 < at.year < 9998),
        "day": st.dates(),
        "clock": st.times(),
        "span": st.timedeltas(),
        "key": st.uuids(),
        "seal": st.binary(max_size=200),
        "papers": JSON,
        "text": TEXTS,
    },
)


@settings(max_examples=150)
@given(row=ROWS, label=TEXTS.map(lambda text: text[:10]))
def test_the_answered_row_is_the_row_that_a_read_gives(
    node: WritingNode, django_db_blocker: Any, row: dict[str, Any], label: str
) -> None:
    """Postgres builds one, the node's encoder the other: the same bytes for every value."""
    with django_db_blocker.unblock():
        Sample.objects.using(ALIAS).all().delete()
        Sample(id=1, **row).save(using=ALIAS)
    answer = node.do("touch", given={"id": "1", "label": label})
    statement = page_statement(Sample.objects.all(), (), after=False)
    with psycopg.connect(node.shard.ro_dsn, autocommit=True) as connection:
        for setting in SESSION_SETTINGS:
            connection.execute(setting)
        with psycopg.RawCursor(connection) as cursor:
            cursor.execute(
                statement.sql, ["2" if s == LIMIT_SLOT else "" for s in statement.slots]
            )
            (read,), _, _ = RowEncoder(statement.columns).encode(cursor.pgresult, 1)

    assert answer == read
    assert json.loads(read)["label"] == label
