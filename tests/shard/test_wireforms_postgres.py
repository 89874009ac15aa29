"""What Django writes, a page of a real Postgres gives back in its wire form, exactly."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import models
from django.db.models import F, Value
from django.db.models.functions import Cast, Coalesce, ExtractYear

from engine.databases import PostgresServer
from modeldefs import Document
from modeldefs.kit.merge import OrderKey, PagePart, merge_pages
from modeldefs.kit.parameters import KINDS, ParameterSpec
from modeldefs.kit.statements import LIMIT_SLOT, Statement, page_statement
from modeldefs.kit.tracing import Param
from shardnode.runtime.lanes import SESSION_SETTINGS
from shardnode.runtime.rows import RowEncoder, array_literal, text_of_key
from tests.shard.served import ALIAS, served_shard

TEXTS = ["", " ", "A", "B", "Z", "a", "b", "z", "Ä", "ß", "ä", "\ue000", "\uffff", "𝒜a", "😀"]


class Sample(Document):
    """One column of every type, each also as NULL."""

    id = models.BigIntegerField(primary_key=True)
    whole = models.IntegerField(null=True)
    tiny = models.SmallIntegerField(null=True)
    big = models.BigIntegerField(null=True)
    ratio = models.FloatField(null=True)
    money = models.DecimalField(max_digits=30, decimal_places=4, null=True)
    flag = models.BooleanField(null=True)
    at = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    clock = models.TimeField(null=True)
    span = models.DurationField(null=True)
    key = models.UUIDField(null=True)
    seal = models.BinaryField(null=True)
    papers = models.JSONField(null=True)
    text = models.TextField(null=True)
    label = models.CharField(max_length=10, null=True)

    class Meta:
        app_label = "definitions_wireforms"

    class Shard:
        key = "id"


CASES: list[tuple[str, Any, str | None]] = [
    ("whole", 2147483647, "2147483647"),
    ("whole", -1, "-1"),
    ("tiny", -32768, "-32768"),
    ("big", 9007199254740993, '"9007199254740993"'),
    ("big", -9223372036854775808, '"-9223372036854775808"'),
    ("ratio", 0.1, "0.1"),
    ("ratio", 1e20, "1e+20"),
    ("ratio", 5e-324, "5e-324"),
    ("ratio", 1.7976931348623157e308, "1.7976931348623157e+308"),
    ("ratio", 3.0, "3"),
    ("ratio", float("nan"), '"NaN"'),
    ("ratio", float("-inf"), '"-Infinity"'),
    ("money", Decimal("1.5"), '"1.5000"'),
    ("money", Decimal("-0.0001"), '"-0.0001"'),
    ("money", Decimal(0), '"0.0000"'),
    ("money", Decimal("12345678901234567890123456.7891"), '"12345678901234567890123456.7891"'),
    ("flag", True, "true"),
    ("flag", False, "false"),
    ("at", datetime(2026, 11, 23, 2, 36, 23, 100000, UTC), '"2026-11-23T02:36:23.100000Z"'),
    (
        "at",
        datetime(2026, 11, 23, 2, 0, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        '"2026-11-22T20:30:00.000000Z"',
    ),
    ("at", datetime(1, 1, 1, tzinfo=UTC), '"0001-01-01T00:00:00.000000Z"'),
    ("at", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), '"9999-12-31T23:59:59.999999Z"'),
    ("day", date(2026, 11, 23), '"2026-11-23"'),
    ("day", date(1, 1, 1), '"0001-01-01"'),
    ("clock", time(1, 2, 3), '"01:02:03"'),
    ("clock", time(23, 59, 59, 999999), '"23:59:59.999999"'),
    ("span", timedelta(days=1, hours=2, minutes=3), '"P1DT2H3M"'),
    ("span", timedelta(0), '"PT0S"'),
    ("span", timedelta(seconds=1.5), '"PT1.5S"'),
    ("span", timedelta(hours=-1), '"P-1DT23H"'),
    ("key", UUID(int=0xABCD), '"00000000-0000-0000-0000-00000000abcd"'),
    ("seal", b"", '""'),
    ("seal", bytes(range(256)) * 2, None),
    ("papers", {"b": [1, 2.50, None], "a": "ä\n😀"}, '{"a": "ä\\n😀", "b": [1, 2.5, null]}'),
    ("papers", "text", '"text"'),
    ("papers", [], "[]"),
    ("papers", Value(None, models.JSONField()), "null"),
    ("text", 'quote " back \\ line \n tab \t end', '"quote \\" back \\\\ line \\n tab \\t end"'),
    ("text", "", '""'),
    ("text", "\u2028 ä 😀", '"\u2028 ä 😀"'),
    ("label", "abc", '"abc"'),
]  # fmt: skip


SEAL = base64.b64encode(bytes(range(256)) * 2).decode()
ORDERED: list[tuple[str, list[Any]]] = [
    ("text", TEXTS),
    ("big", [-(2**63), -1, 0, 9, 10, 2**63 - 1]),
    ("money", [Decimal(n) for n in ("-10.5", "-9", "0", "0.0001", "9", "10", "100")]),
    ("ratio", [-1e300, -1.5, 0.0, 5e-324, 0.1, 2.0, 10.0, 1e20]),
    ("at", [datetime(year, 1, 1, tzinfo=UTC) for year in (1, 999, 1970, 2026, 9999)]),
    ("day", [date(1, 1, 1), date(1999, 12, 31), date(2000, 1, 1)]),
    ("clock", [time(1, 2), time(1, 2, 0, 5), time(1, 2, 3), time(23)]),
    ("key", [UUID(int=0), UUID(int=255), UUID(int=2**127), UUID(int=2**128 - 1)]),
    ("flag", [False, True]),
    ("label", ["A", "a", "ä", "😀"]),
]


@pytest.fixture(scope="module")
def connection(
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: Any,
) -> Iterator[psycopg.Connection[Any]]:
    """Return a reading connection, as a lane has it, to a shard that holds the sample's table."""
    run_dir = tmp_path_factory.mktemp("served")
    with (
        django_db_blocker.unblock(),
        served_shard(postgres_server, run_dir, [Sample]) as shard,
        psycopg.connect(shard.ro_dsn, autocommit=True) as found,
    ):
        for setting in SESSION_SETTINGS:
            found.execute(setting)
        yield found


@pytest.fixture(autouse=True)
def empty(connection: psycopg.Connection[Any], django_db_blocker: Any) -> Iterator[None]:
    """Begin with an empty table, and let Django write to the shard."""
    with django_db_blocker.unblock():
        Sample.objects.using(ALIAS).all().delete()
        yield


def run(
    connection: psycopg.Connection[Any],
    statement: Statement,
    limit: int = 100,
    **values: str | None,
) -> tuple[list[bytes], list[list[Any]], bool]:
    """Return rows, keys and whether there are more, as a node answers them."""
    filled = {LIMIT_SLOT: str(limit + 1), **values}
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(statement.sql, [filled[slot] for slot in statement.slots])
        return RowEncoder(statement.columns).encode(cursor.pgresult, limit)


def page(rows: Any, *order: str) -> Statement:
    """Return the statement of the first page."""
    return page_statement(rows, order, after=False)


@pytest.mark.parametrize("name, value, wire", CASES)
def test_wire_form(
    connection: psycopg.Connection[Any], name: str, value: Any, wire: str | None
) -> None:
    """A value leaves in its column's form, byte for byte."""
    Sample(id=1, **{name: value}).save(using=ALIAS)
    (row,), _, _ = run(connection, page(Sample.objects.values("id", name)))
    expected = wire if wire is not None else f'"{SEAL}"'

    assert f'{{"id":"1","{name}":{expected}}}' == row.decode()


def test_every_column_may_be_null(connection: psycopg.Connection[Any]) -> None:
    """NULL leaves as null, whatever the type."""
    Sample(id=1).save(using=ALIAS)
    (row,), keys, more = run(connection, page(Sample.objects.all()))
    names = [f.name for f in Sample._meta.fields if f.name not in ("id", "bucket")]

    assert {"id": "1", **dict.fromkeys(names)} == json.loads(row)
    assert ([[1]], False) == (keys, more)


def test_joined_rows_are_the_rows(connection: psycopg.Connection[Any]) -> None:
    """Rows given as one run of bytes are the same rows, with the last key."""
    for number in range(5):
        Sample(id=number, papers={"n": number}, ratio=number).save(using=ALIAS)
    statement = page(Sample.objects.values("id", "papers", "ratio"))
    rows, keys, more = run(connection, statement, limit=3)
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(statement.sql, ["4"])
        joined = RowEncoder(statement.columns).encode_joined(cursor.pgresult, 3)

    assert (b",".join(rows), keys[-1], True) == joined
    assert more is True


@pytest.mark.parametrize("direction", ["", "-"])
@pytest.mark.parametrize("name, values", ORDERED, ids=[name for name, _ in ORDERED])
def test_keys_sort_as_postgres_does(
    connection: psycopg.Connection[Any], name: str, values: list[Any], direction: str
) -> None:
    """Merging by keys gives Postgres' own order, and a walk by keys meets each row once."""
    for number, value in enumerate(reversed(values)):
        Sample(id=number, **{name: value}).save(using=ALIAS)
    rows = Sample.objects.annotate(sort=Coalesce(name, Value(values[0], _field(name))))
    first = page_statement(rows.values("id"), (f"{direction}sort",), after=False)
    after = page_statement(rows.values("id"), (f"{direction}sort",), after=True)
    found, keys, _ = run(connection, first)
    order = [OrderKey(key.descending, key.form.name == "decimal") for key in first.keys]
    parts = [PagePart(found[n::2], keys[n::2], False) for n in (1, 0)]
    ascending = [f'{{"id":"{number}"}}'.encode() for number in reversed(range(len(values)))]
    walked, position, more = run(connection, first, limit=1)
    while more:
        bounds = {f"sp_after_{n}": text_of_key(key).decode() for n, key in enumerate(position[-1])}
        step, position, more = run(connection, after, limit=1, **bounds)
        walked += step

    assert (ascending[::-1] if direction else ascending) == found
    assert found == merge_pages(parts, order, 100).rows
    assert found == walked


def _field(name: str) -> models.Field[Any, Any]:
    field: Any = Sample._meta.get_field(name)
    return field  # type: ignore[no-any-return]


def test_texts_sort_by_code_point(connection: psycopg.Connection[Any]) -> None:
    """Also a text that no column gave its collation sorts as Python sorts it."""
    for number in (1, 10, 9, 2, 100):
        Sample(id=number).save(using=ALIAS)
    rows = Sample.objects.annotate(
        shown=Coalesce(Cast("id", models.TextField()), Value("", models.TextField()))
    )
    _, keys, _ = run(connection, page(rows, "shown"))

    assert [["1", 1], ["10", 10], ["100", 100], ["2", 2], ["9", 9]] == keys


def test_computed_columns(connection: psycopg.Connection[Any]) -> None:
    """What Postgres computes as numeric leaves as the number that Django says it is."""
    Sample(id=1, whole=3, at=datetime(2026, 1, 1, tzinfo=UTC)).save(using=ALIAS)
    rows = Sample.objects.annotate(year=ExtractYear("at"), twice=F("whole") * 2)
    (row,), _, _ = run(connection, page(rows.values("year", "twice", "id")))

    assert b'{"year":2026,"twice":6,"id":"1"}' == row


@pytest.mark.parametrize("text", ["it's", "50% %s %%", "back\\slash", "\\'; --", "$1", "ä😀", ""])
def test_constants_arrive_as_they_are(connection: psycopg.Connection[Any], text: str) -> None:
    """A constant of a definition is found again by Postgres, whatever it contains."""
    Sample(id=1, text=text).save(using=ALIAS)
    Sample(id=2, text="another").save(using=ALIAS)
    rows, _, _ = run(connection, page(Sample.objects.filter(text=text).values("id")))

    assert [b'{"id":"1"}'] == rows


PARAMETERS: list[tuple[str, type, str]] = [
    ("big", int, "9007199254740993"),
    ("ratio", float, "1e20"),
    ("money", Decimal, "1.50"),
    ("flag", bool, "true"),
    ("at", datetime, "2026-11-23T02:36:23.1+05:30"),
    ("day", date, "2024-02-29"),
    ("span", timedelta, "-P1DT2H0.5S"),
    ("span", timedelta, "P-1DT23H"),
    ("key", UUID, "00000000-0000-0000-0000-00000000000a"),
    ("text", str, "it's 50% ä😀\\"),
]


@pytest.mark.parametrize("name, kind, text", PARAMETERS)
def test_canonical_text_means_the_value(
    connection: psycopg.Connection[Any], name: str, kind: type, text: str
) -> None:
    """What Postgres reads from a canonical text is what Django writes for the Python value."""
    spec = ParameterSpec("given", KINDS[kind], required=True)
    canonical = spec.text_of(text)
    Sample(id=1, **{name: spec.kind.to_python(canonical)}).save(using=ALIAS)
    rows = Sample.objects.filter(**{name: Param("given", spec.pg_type)}).values("id")
    found, _, _ = run(connection, page(rows), given=canonical)

    assert [b'{"id":"1"}'] == found


def test_durations_that_left_come_back(connection: psycopg.Connection[Any]) -> None:
    """A duration is taken in the form in which it was given out."""
    spec = ParameterSpec("given", KINDS[timedelta], required=True)
    spans = [timedelta(hours=-1), timedelta(days=3, microseconds=5), timedelta(days=-2)]
    for number, span in enumerate(spans):
        Sample(id=number, span=span).save(using=ALIAS)
    rows, _, _ = run(connection, page(Sample.objects.values("span")))
    texts = [json.loads(row)["span"] for row in rows]

    assert spans == [spec.kind.to_python(spec.text_of(text)) for text in texts]


def test_lists_of_anything(connection: psycopg.Connection[Any]) -> None:
    """A list travels as one array, whatever its texts contain."""
    texts = ["a,b", 'quo"te', "back\\slash", "{x}", "NULL", "", "ä😀"]
    for number, text in enumerate(texts):
        Sample(id=number, text=text).save(using=ALIAS)
    rows = Sample.objects.filter(text__in=Param("given", "text[]", is_list=True)).values("text")
    found, _, _ = run(connection, page(rows), given=array_literal(texts).decode())

    assert texts == [json.loads(row)["text"] for row in found]


def test_nothing_is_found_by_nothing(connection: psycopg.Connection[Any]) -> None:
    """none() and an empty list are statements that Postgres answers with no row."""
    Sample(id=1).save(using=ALIAS)

    assert ([], [], False) == run(connection, page(Sample.objects.none()))
    assert ([], [], False) == run(connection, page(Sample.objects.filter(id__in=[])))
