"""Tags on a real Postgres: the same tag means the same rows, and any commit makes another."""

# mypy: disable-error-code="return-value,no-any-return"

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import models
from django.db.models.functions import Coalesce

from modeldefs import Cache, Document, Groups, Page, aggregate, count, highest, query
from modeldefs.kit.snapshots import tagged_sql
from shardnode.runtime.read_parts import TaggedPart
from tests.shard.reading import ReadingNode, reading_node
from tests.shard.served import ALIAS, ServedShard
from tests.shard.writing import catalog_of


class Stone(Document):
    """Something that lies about."""

    id = models.BigIntegerField(primary_key=True)
    colour = models.TextField()
    weight = models.FloatField(null=True)
    facts = models.JSONField(default=dict)

    class Meta:
        app_label = "definitions_tagged"

    class Shard:
        key = "id"


@query(order="-heavy,id", cache=Cache())
def stones(*, colour: str | None = None) -> Page[Stone]:
    """Stones of a colour, the heaviest first."""
    heavy = Coalesce("weight", models.Value(0.0))
    return Stone.objects.given(colour=colour).annotate(heavy=heavy)


@query
def stone(*, id: int) -> Stone | None:
    """One stone."""
    return Stone.objects.filter(id=id).one()


@aggregate(on=Stone)
def stones_by_colour() -> Groups[str, int]:
    """How many stones of each colour there are, and how heavy they get."""
    return Stone.objects.values("colour").annotate(stones=count(), most=highest("weight"))


@aggregate(on=Stone)
def number_of_stones() -> int:
    """How many there are."""
    return Stone.objects.totals(stones=count())


MODELS: list[Any] = [Stone]
ENDPOINTS: list[Any] = [stones, stone, stones_by_colour, number_of_stones]
READS: list[tuple[str, dict[str, Any]]] = [
    ("stones", {}),
    ("stones", {"joined": False}),
    ("stones", {"limit": 3}),
    ("stones", {"limit": 3, "joined": False}),
    ("stones", {"given": {"colour": "grey"}}),
    ("stones", {"given": {"colour": "none of it"}}),
    ("stones", {"given": {"colour": "none of it"}, "joined": False}),
    ("stones", {"after": [2.5, "3"], "limit": 2}),
    ("stone", {"given": {"id": "3"}}),
    ("stone", {"given": {"id": "99"}}),
    ("stones_by_colour", {}),
    ("number_of_stones", {}),
]


@pytest.fixture(scope="module")
def reader(shard: ServedShard) -> Iterator[ReadingNode]:
    """Return a node that reads nine stones."""
    colours = ("grey", "white", 'b"lack\\')
    Stone.objects.using(ALIAS).bulk_create(
        Stone(
            id=number,
            colour=colours[number % 3],
            weight=None if number == 5 else number % 4 + 0.5,
            facts={"n": number, "deep": [None, "ä"]},
        )
        for number in range(9)
    )
    with reading_node(shard.ro_dsn, catalog_of(ENDPOINTS, MODELS)) as node:
        yield node


def commit(shard: ServedShard) -> None:
    """Commit something that no read looks at."""
    with psycopg.connect(shard.admin_dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_current_xact_id()")


def tagged(answer: Any) -> TaggedPart:
    """Return an answer that has a tag."""
    assert isinstance(answer, TaggedPart), answer
    assert len(answer.tag) == 16
    return answer


@pytest.mark.parametrize(("name", "options"), READS)
def test_the_rows_are_those_of_the_plain_statement(
    reader: ReadingNode, name: str, options: dict[str, Any]
) -> None:
    """A tag changes nothing about rows, keys, order, or whether there is more."""
    plain = reader.read(name, **options)
    told = tagged(reader.read(name, tag="", **options))

    assert plain == told.part or [plain] == getattr(told.part, "rows", None)


@pytest.mark.parametrize(("name", "options"), READS)
def test_unchanged_until_any_commit(
    reader: ReadingNode, shard: ServedShard, name: str, options: dict[str, Any]
) -> None:
    """Who has the rows is told so for as long as nobody commits, and gets rows after that."""
    first = tagged(reader.read(name, tag="", **options))
    again = reader.read(name, tag=first.tag, **options)
    commit(shard)
    after = tagged(reader.read(name, tag=first.tag, **options))
    foreign = tagged(reader.read(name, tag="0123456789abcdef", **options))

    assert TaggedPart(first.tag, None) == again
    assert after.tag != first.tag
    assert [first.part, first.part] == [after.part, foreign.part]


def test_a_transaction_under_way_is_told_by_its_commit(
    reader: ReadingNode, shard: ServedShard
) -> None:
    """Rows that are written and not committed change no rows, and the tag when they are there."""
    everything = {"limit": 100}
    with psycopg.connect(shard.rw_dsn) as writer:
        writer.execute("SELECT set_config('sp.load', 'on', true)")
        writer.execute(f"UPDATE {shard.schema}.definitions_tagged_stone SET colour = 'red'")
        before = tagged(reader.read("stones", tag="", **everything))
        still = reader.read("stones", tag=before.tag, **everything)
        writer.rollback()
        undone = tagged(reader.read("stones", tag=before.tag, **everything))

    assert TaggedPart(before.tag, None) == still
    assert before.part == undone.part
    assert before.tag != undone.tag  # who was under way is not any more


def test_reads_of_one_tick_have_tags_of_their_own(reader: ReadingNode) -> None:
    """Statements of a batch share a transaction and not a row: plain and tagged ones go along."""
    known = tagged(reader.read("stones", tag="")).tag
    asked = [
        (name, {**options, "tag": tag}) for name, options in READS for tag in (None, "", known)
    ]
    together = reader.together(*asked)
    alone = [reader.read(name, **options) for name, options in asked]

    assert alone == together
    assert {known} == {each.tag for each in together if isinstance(each, TaggedPart)}


def test_the_statement_is_not_run_for_who_has_its_rows(shard: ServedShard) -> None:
    """Postgres looks at the tag once, before the first row: the read's own plan never begins."""
    fails = "SELECT 1 / (random() * 0)::int AS broken FROM generate_series(1, 3)"
    with psycopg.connect(shard.ro_dsn, autocommit=True) as connection:
        connection.execute("SELECT set_config('shardpoint.life', 'l', false)")
        sql = tagged_sql(fails, 1).replace("$1", "%s")
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute(sql, ("",))
        tag = connection.execute(tagged_sql("SELECT 1", 1).replace("$1", "%s"), ("",)).fetchone()
        assert tag is not None
        assert [(None, None, tag[-1])] == connection.execute(sql, (tag[-1],)).fetchall()


def test_without_a_life_there_is_no_tag(shard: ServedShard) -> None:
    """A standby, or a server that does not say which it is, gives rows and no tag for them."""
    sql = tagged_sql("SELECT 7 AS n", 1).replace("$1", "%s")
    with psycopg.connect(shard.ro_dsn, autocommit=True) as connection:
        assert [(7, True, None)] == connection.execute(sql, ("",)).fetchall()
        connection.execute("SELECT set_config('shardpoint.life', '', false)")
        assert [(7, True, None)] == connection.execute(sql, ("0" * 16,)).fetchall()
