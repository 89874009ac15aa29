"""Tables follow the definitions: additive changes online, everything else refused."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from django.db import models

from modeldefs.kit.buckets import bucket_of
from shardnode.storage.changes import RolloutNeeded
from shardnode.storage.tables import LockNotGained, OnlineLimits, ShardTables
from tests.shard.storage.fixture_models import country, make_model, person
from tests.shard.storage.provisioned import FixtureShard

Connection = psycopg.Connection[Any]


def apply(shard: FixtureShard, *models_now: Any, **options: Any) -> Any:
    """Apply definitions through the migration login."""
    tables = ShardTables(shard.migrate_dsn, shard.names, **options)
    try:
        return tables.apply(list(models_now), bundle="b2")
    finally:
        tables.close()


def test_new_column_table_and_index(shard: FixtureShard, rw: Connection) -> None:
    """A defaulted column, its index and a new table appear beside rows that exist."""
    with rw.transaction():
        rw.execute("SELECT set_config('sp.load', 'on', true)")
        rw.execute("INSERT INTO fixture_person VALUES (7, 1, 'A', 'SE', NULL)")
    extra = make_model("Extra", {"id": models.BigIntegerField(primary_key=True)}, key="id")

    report = apply(
        shard,
        shard.country,
        extra,
        person(
            score=models.IntegerField(default=3, db_index=True), note=models.TextField(null=True)
        ),
    )

    assert report.tables == ["fixture_extra"]
    assert report.columns == ["fixture_person.score", "fixture_person.note"]
    assert len(report.indexes) == 1
    assert rw.execute("SELECT score, note FROM fixture_person").fetchall() == [(3, None)]
    rw.execute("SELECT * FROM fixture_extra")
    again = apply(
        shard,
        shard.country,
        extra,
        person(
            score=models.IntegerField(default=3, db_index=True), note=models.TextField(null=True)
        ),
    )
    assert (again.tables, again.columns, again.indexes) == ([], [], [])


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (lambda: person(name=models.IntegerField()), "type-changed"),
        (lambda: person(name=models.TextField(null=True)), "nullability-changed"),
        (lambda: person(born=models.DateField()), "nullability-changed"),
        (lambda: person(more=models.TextField()), "column-without-default"),
        (lambda: person(name=models.TextField(unique=True)), "unique-added"),
        (
            lambda: make_model(
                "Person", {"id": models.BigIntegerField(primary_key=True)}, key="id"
            ),
            "column-removed",
        ),
        (
            lambda: make_model(
                "Person",
                {
                    "id": models.BigIntegerField(primary_key=True),
                    "name": models.TextField(),
                    "country": models.TextField(),
                    "born": models.DateField(null=True),
                },
                key="country",
            ),
            "shard-key-changed",
        ),
    ],
)
def test_other_changes_are_refused_whole(settled: FixtureShard, changed: Any, code: str) -> None:
    """A change that is not additive is refused by name, and nothing else is done either."""
    extra = make_model("Extra", {"id": models.BigIntegerField(primary_key=True)}, key="id")
    with pytest.raises(RolloutNeeded) as refused:
        apply(settled, settled.country, extra, changed())

    assert code in {refusal.code for refusal in refused.value.refusals}
    with psycopg.connect(settled.migrate_dsn) as connection:
        found = connection.execute("SELECT to_regclass('fixture_extra')").fetchone()
    assert found == (None,)


def test_busy_table_is_given_way(shard: FixtureShard, rw: Connection) -> None:
    """While a transaction holds the table a change waits briefly and gives way, then succeeds."""
    wanted = person(note=models.TextField(null=True))
    limits = OnlineLimits(lock_timeout_ms=20, attempts_max=2)
    with rw.transaction():
        rw.execute("SELECT 1 FROM fixture_person")
        with pytest.raises(LockNotGained):
            apply(shard, shard.country, wanted, limits=limits, sleep=lambda _: None)

    assert apply(shard, shard.country, wanted).columns == ["fixture_person.note"]


def test_two_appliers_at_once(shard: FixtureShard) -> None:
    """Appliers side by side do each change once."""
    reports: list[Any] = []
    wanted = person(note=models.IntegerField(null=True, db_index=True))
    threads = [
        threading.Thread(target=lambda: reports.append(apply(shard, shard.country, wanted)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(len(report.columns) for report in reports) == [0, 0, 1]
    assert sorted(len(report.indexes) for report in reports) == [0, 0, 1]


def test_text_orders_by_code_point(shard: FixtureShard, rw: Connection) -> None:
    """Text columns order as Python does, whatever the database's own collation."""
    texts = ["a", "B", "Z", "é", "z", "\U0001f600", "\uffee", "_", "ab", "a b"]
    with rw.transaction():
        rw.execute("SELECT set_config('sp.load', 'on', true)")
        for number, text in enumerate(texts):
            rw.execute("INSERT INTO fixture_person VALUES (7, %s, %s, 'SE', NULL)", (number, text))
    ordered = rw.execute("SELECT name FROM fixture_person ORDER BY name").fetchall()

    assert [row[0] for row in ordered] == sorted(texts)


@pytest.mark.parametrize(
    ("setting", "statement", "state"),
    [
        ("8", "INSERT INTO fixture_person VALUES (7, 2, 'A', 'SE', NULL)", "SP001"),
        ("", "INSERT INTO fixture_person VALUES (7, 2, 'A', 'SE', NULL)", "SP001"),
        ("8", "UPDATE fixture_person SET name = 'B'", "SP001"),
        ("8", "DELETE FROM fixture_person", "SP001"),
        ("7", "UPDATE fixture_person SET id = 9", "SP002"),
        ("8", "UPDATE fixture_person SET bucket = 8", "SP002"),
    ],
)
def test_guard_refuses(settled_rw: Connection, setting: str, statement: str, state: str) -> None:
    """Rows change only under their own bucket, and never their shard key."""
    settled_rw.execute("SELECT set_config('sp.bucket', %s, false)", (setting,))
    with pytest.raises(psycopg.Error) as refused:
        settled_rw.execute(statement)

    assert refused.value.sqlstate == state
    rows = settled_rw.execute("SELECT * FROM fixture_person").fetchall()
    assert rows == [(7, 1, "A", "SE", None)]


def test_guard_refuses_truncate_even_to_the_owner(shard: FixtureShard) -> None:
    """TRUNCATE would pass by row triggers, so a statement trigger refuses it."""
    with psycopg.connect(shard.migrate_dsn, autocommit=True) as connection:
        connection.execute(f'SET ROLE "{shard.names.owner}"')
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("TRUNCATE fixture_person")

    assert refused.value.sqlstate == "SP001"


def add_country(rw: Connection) -> None:
    """Add a reference row as a load does."""
    with rw.transaction():
        rw.execute("SELECT set_config('sp.load', 'on', true)")
        rw.execute("INSERT INTO fixture_country VALUES ('SE', 'Sweden')")


WRITES_OF_REFERENCES = [
    "INSERT INTO fixture_country VALUES ('NO', 'Norway')",
    "INSERT INTO fixture_country VALUES ('SE', 'S') ON CONFLICT (code) DO UPDATE SET name = 'S'",
    "UPDATE fixture_country SET name = 'S'",
    "DELETE FROM fixture_country",
]


@pytest.mark.parametrize("setting", ["", "7", None])
@pytest.mark.parametrize("statement", WRITES_OF_REFERENCES)
def test_reference_is_written_by_loads_alone(
    settled_rw: Connection, statement: str, setting: str | None
) -> None:
    """What a mutation does to a reference row is refused under any bucket."""
    if setting is not None:
        settled_rw.execute("SELECT set_config('sp.bucket', %s, false)", (setting,))
    with pytest.raises(psycopg.Error) as refused:
        settled_rw.execute(statement)

    assert refused.value.sqlstate == "SP005"
    assert settled_rw.execute("SELECT * FROM fixture_country").fetchall() == [("SE", "Sweden")]


@pytest.mark.parametrize("statement", WRITES_OF_REFERENCES[1:])
def test_a_load_may_change_references(shard: FixtureShard, rw: Connection, statement: str) -> None:
    """A load and a re-homing go to every shard, so they may change and delete reference rows."""
    add_country(rw)
    with rw.transaction():
        rw.execute("SELECT set_config('sp.load', 'on', true)")
        rw.execute(statement)

    assert ("SE", "Sweden") not in rw.execute("SELECT * FROM fixture_country").fetchall()


def test_reference_refuses_truncate_even_to_the_owner(shard: FixtureShard) -> None:
    """TRUNCATE passes by row triggers, so a statement trigger refuses it outside a load."""
    with psycopg.connect(shard.migrate_dsn, autocommit=True) as connection:
        connection.execute(f'SET ROLE "{shard.names.owner}"')
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("TRUNCATE fixture_country")
        connection.execute("SET sp.load = 'on'")
        connection.execute("TRUNCATE fixture_country")

    assert refused.value.sqlstate == "SP005"


def test_tables_of_an_older_version_get_their_guard(shard: FixtureShard, rw: Connection) -> None:
    """Applying the same definitions again guards reference tables that were made without."""
    with psycopg.connect(shard.migrate_dsn, autocommit=True) as connection:
        connection.execute(f'SET ROLE "{shard.names.owner}"')
        connection.execute("DROP FUNCTION sp_refuse_reference() CASCADE")
    rw.execute("INSERT INTO fixture_country VALUES ('SE', 'Sweden')")

    report = apply(shard, shard.country, shard.person)

    assert (report.tables, report.columns, report.indexes) == ([], [], [])
    with pytest.raises(psycopg.Error) as refused:
        rw.execute("DELETE FROM fixture_country")
    assert refused.value.sqlstate == "SP005"
    row = rw.execute(
        "SELECT has_function_privilege('public', 'sp_refuse_reference()', 'execute')"
    ).fetchone()
    assert row == (False,)


def test_reference_has_no_bucket(shard: FixtureShard, rw: Connection) -> None:
    """A reference model has no bucket: its rows are the same on every shard."""
    add_country(rw)

    assert rw.execute("SELECT * FROM fixture_country").fetchall() == [("SE", "Sweden")]
    assert country()._meta.db_table == "fixture_country"
    assert bucket_of("SE") >= 0
