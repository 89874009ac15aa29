"""Parts of a load are applied once and whole; pages give every row back."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from modeldefs.kit.buckets import BUCKET_COUNT, bucket_of
from modeldefs.wire.problems import InvalidRequest, WrongShard
from shardnode.storage.copy_in import LoadPart, LoadResult, OnConflict, load_part
from shardnode.storage.copy_out import count_rows, delete_rows, read_page
from shardnode.storage.meta import OwnedRange, accept_map
from tests.shard.storage.provisioned import FixtureShard

Connection = psycopg.Connection[Any]
COLUMNS = ("id", "name", "country", "born")


def line(id: int | str, name: str = "A", country: str = "SE", born: str = "") -> str:
    """Return one record with its bucket."""
    bucket = bucket_of(int(id)) if str(id).lstrip("-").isdecimal() else 0
    return f"{bucket},{id},{name},{country},{born}\n"


def part(
    shard: FixtureShard, body: str | bytes, number: int = 0, on_conflict: OnConflict = "error"
) -> LoadPart:
    """Return a part of one load."""
    raw = body.encode() if isinstance(body, str) else body
    return LoadPart(shard.person, "load", number, COLUMNS, on_conflict, raw)


def test_part_is_applied_once_under_concurrent_retries(shard: FixtureShard) -> None:
    """Of many sends of one part at the same moment one writes; the others say what it did."""
    body = "".join(line(number) for number in range(500))
    results: list[LoadResult] = []
    barrier = threading.Barrier(6)

    def send() -> None:
        with psycopg.connect(shard.rw_dsn, autocommit=True) as connection:
            barrier.wait()
            results.append(load_part(connection, part(shard, body)))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [result.rows for result in results] == [500] * 6
    assert sorted(result.replayed for result in results) == [False] + [True] * 5
    with psycopg.connect(shard.ro_dsn) as connection:
        assert count_rows(connection, shard.person, ranges=())[0] == 500


def test_bad_records_are_all_named_and_nothing_is_stored(
    shard: FixtureShard, rw: Connection
) -> None:
    """Every bad record comes back with its number and reason; the part leaves no trace."""
    records = [line(number, name='"two\nlines, ""q"""') for number in range(3_000)]
    records[10] = line("x")
    records[700] = line(700, born="2020-02-30")
    records[701] = "5,701,A\n"
    records[1500] = f"{bucket_of(1500)},1500,,SE,\n"
    records[2999] = line(0)
    with pytest.raises(InvalidRequest) as refused:
        load_part(rw, part(shard, "".join(records)))

    named = {int((each.pointer or "")[1:]): each.code for each in refused.value.errors}
    assert named == {
        11: "wrong-type",
        701: "out-of-range",
        702: "malformed-body",
        1501: "missing",
        3000: "conflict",
    }
    assert "fixture_person" not in str(refused.value.document())
    assert rw.execute("SELECT count(*) FROM fixture_person").fetchone() == (0,)
    good = "".join(r for at, r in enumerate(records) if at + 1 not in named)
    assert load_part(rw, part(shard, good)).rows == 2_995


@pytest.mark.parametrize("bad", [b"\xff", b"\x00"])
def test_text_that_cannot_be_stored(shard: FixtureShard, rw: Connection, bad: bytes) -> None:
    """Bytes that are no UTF-8 text, and NUL, are refused with the record's number."""
    body = (line(1) + line(2)).encode() + line(3).encode().replace(b"A", bad)
    with pytest.raises(InvalidRequest) as refused:
        load_part(rw, part(shard, body))

    assert [each.pointer for each in refused.value.errors] == ["/3"]


def test_conflicts(shard: FixtureShard, rw: Connection) -> None:
    """Records whose key exists are refused, skipped or replace the row, as asked."""
    load_part(rw, part(shard, line(1) + line(2)))
    more = line(2, name="B") + line(3) + line(3, name="C")

    with pytest.raises(InvalidRequest) as refused:
        load_part(rw, part(shard, more, 1))
    assert [each.pointer for each in refused.value.errors] == ["/1", "/3"]
    skipped = load_part(rw, part(shard, more, 2, "skip"))
    assert (skipped.rows, skipped.skipped) == (1, 2)
    updated = load_part(rw, part(shard, more + line(4), 3, "update"))
    assert (updated.rows, updated.updated) == (1, 3)
    rows = rw.execute("SELECT id, name FROM fixture_person ORDER BY id").fetchall()
    assert rows == [(1, "A"), (2, "B"), (3, "C"), (4, "A")]
    again = load_part(rw, part(shard, more + line(4), 3, "update"))
    assert (again.rows, again.updated, again.replayed) == (1, 3, True)


def test_bucket_of_another_shard_is_refused(shard: FixtureShard, rw: Connection) -> None:
    """A part with a record of a bucket that is not owned is refused whole."""
    mine = bucket_of(1)
    accept_map(rw, epoch=1, ranges=[OwnedRange(mine, mine, 1)], owners=[])

    assert load_part(rw, part(shard, line(1))).rows == 1
    with pytest.raises(WrongShard):
        load_part(rw, part(shard, line(5, name="B") + line(2), 1))
    assert rw.execute("SELECT count(*) FROM fixture_person").fetchone() == (1,)


def test_unknown_columns_are_refused(shard: FixtureShard, rw: Connection) -> None:
    """A column that the model lacks, or the bucket itself, is no column of a load."""
    for columns in (("id", "nme"), ("id", "bucket"), ("id", "id"), ("name",)):
        with pytest.raises(InvalidRequest):
            load_part(rw, LoadPart(shard.person, "l", 0, columns, "error", b"1,1,1\n"))


def test_pages_give_back_what_was_loaded(
    shard: FixtureShard, rw: Connection, ro: Connection
) -> None:
    """Pages by primary key hold every row once, in the form that a load takes."""
    names = ["plain", '"co,mma"', '"li\nne"', '""', '"q""q"', "é😀"]
    body = "".join(line(number, name=names[number % 6]) for number in range(100))
    load_part(rw, part(shard, body))
    before = rw.execute("SELECT * FROM fixture_person ORDER BY id").fetchall()

    pages, after = [], None
    while True:
        page = read_page(ro, shard.person, ranges=[(0, BUCKET_COUNT - 1)], after=after, limit=33)
        pages.append(page)
        if page.next is None:
            break
        after = page.next
    assert [page.rows for page in pages] == [33, 33, 33, 1]
    assert delete_rows(rw, shard.person, ranges=[(0, BUCKET_COUNT - 1)]) == 100
    for number, page in enumerate(pages, start=1):
        load_part(
            rw,
            LoadPart(shard.person, "back", number, page.columns[1:], "error", page.body),
        )
    assert rw.execute("SELECT * FROM fixture_person ORDER BY id").fetchall() == before


def test_counts_and_deletes_by_range(shard: FixtureShard, rw: Connection) -> None:
    """Counting and deleting by bucket range add up to the whole."""
    load_part(rw, part(shard, "".join(line(number) for number in range(300))))
    total, by_range = count_rows(rw, shard.person, ranges=[(0, 8191), (8192, 16383)])

    assert total == 300 == sum(by_range.values())
    assert delete_rows(rw, shard.person, ranges=[(0, 8191)]) == by_range["0-8191"]
    assert count_rows(rw, shard.person, ranges=())[0] == by_range["8192-16383"]


def test_after_of_another_type_is_refused(shard: FixtureShard, ro: Connection) -> None:
    """A position that is no primary key is the caller's mistake."""
    with pytest.raises(InvalidRequest):
        read_page(ro, shard.person, ranges=None, after="x'; DROP TABLE fixture_person", limit=1)


@pytest.mark.parametrize("on_conflict", ["error", "skip", "update"])
def test_reference_rows_are_loaded(
    shard: FixtureShard, rw: Connection, on_conflict: OnConflict
) -> None:
    """Loads and re-homing write reference rows in every way they can."""
    columns, body = ("code", "name"), b"SE,Sweden\nNO,Norway\n"
    wanted = LoadPart(shard.country, "references", 0, columns, on_conflict, body)
    again = LoadPart(shard.country, "references", 1, columns, "update", b"SE,S\n")

    assert load_part(rw, wanted).rows == 2
    assert load_part(rw, again).updated == 1
    assert count_rows(rw, shard.country, ranges=()) == (2, {})
