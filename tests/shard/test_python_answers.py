"""What a Python mutation answers is read back in its transaction: else nothing is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from django.db import models

from modeldefs import Document, mutation
from modeldefs.wire.calls import Replayed
from shardnode.runtime.mutations import Writer
from tests.shard.served import ServedShard, default_in_new_threads
from tests.shard.writing import WritingNode, catalog_of, code, keys, writing_node


class Tally(Document):
    """A number that is added to."""

    id = models.BigIntegerField(primary_key=True)
    count = models.IntegerField(default=0)

    class Meta:
        app_label = "definitions_python_answers"

    class Shard:
        key = "id"


@mutation
def add(*, id: int, by: int) -> Tally:
    """Add to a tally, which begins at nothing."""
    tally, _ = Tally.objects.get_or_create(id=id)
    tally.count += by
    tally.save()
    return tally


@mutation
def take_away(*, id: int) -> Tally:
    """Return a row that is gone by then."""
    tally = Tally.objects.get(id=id)
    Tally.objects.filter(id=id).delete()
    return tally


@mutation
def forget(*, id: int) -> Tally:
    """Return a row that has lost its key with its place."""
    tally = Tally.objects.get(id=id)
    tally.delete()
    return tally


@mutation
def add_all(*, id: int) -> Tally:
    """Return what is no answer."""
    Tally.objects.get_or_create(id=id)
    found: Any = Tally.objects.filter(id=id)
    return found  # type: ignore[no-any-return]


@mutation(on=Tally)
def add_oddly(*, id: int) -> bool:
    """Return what JSON cannot carry."""
    Tally.objects.get_or_create(id=id)
    odd: Any = object()
    return odd  # type: ignore[no-any-return]


MODELS = [Tally]
ENDPOINTS: list[Any] = [add, take_away, forget, add_all, add_oddly]
TABLE = "definitions_python_answers_tally"


@pytest.fixture(scope="module")
def node(shard: ServedShard) -> Iterator[WritingNode]:
    """Return a worker that writes to it, Python included."""
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
        connection.execute(f"DELETE FROM {TABLE}")
        connection.execute("DELETE FROM sp_idempotency")


def tallies(node: WritingNode) -> list[tuple[Any, ...]]:
    """Return what is stored."""
    return node.sql(f"SELECT id, count FROM {TABLE} ORDER BY id")


@contextmanager
def reading_back(monkeypatch: pytest.MonkeyPatch, sql: str) -> Iterator[None]:
    """Have the answer read by another statement; its two parameters are the key and the limit."""
    stored = Writer._stored

    def bent(self: Writer, row: models.Model) -> bytes:
        if type(row) not in self._read_back:
            stored(self, row)
        statement, encoder = known = self._read_back[type(row)]
        self._read_back[type(row)] = replace(statement, sql=sql), encoder
        try:
            return stored(self, row)
        finally:
            self._read_back[type(row)] = known

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "_stored", bent)
        yield


NEVER = "SELECT pg_sleep(600), $1::text, $2::int"
AT_FAULT = "SELECT 1 / 0, $1::text, $2::int"
ENDED = "SELECT pg_terminate_backend(pg_backend_pid()), $1::text, $2::int"


@pytest.mark.parametrize("key", ["", "once"])
@pytest.mark.parametrize(
    ("sql", "expected", "deadline_s"),
    [
        (NEVER, "deadline-exceeded", 0.5),
        (AT_FAULT, "definition-fault", 20.0),
        (ENDED, "shard-reset", 20.0),
    ],
)
def test_a_write_whose_answer_cannot_be_read_is_not_done(
    node: WritingNode,
    monkeypatch: pytest.MonkeyPatch,
    sql: str,
    expected: str,
    deadline_s: float,
    key: str,
) -> None:
    """Late, at fault, or its connection gone: the write is rolled back and no key is stored; under
    the same key it is done by the next request, and once."""
    given = {"id": "1", "by": 5}
    with reading_back(monkeypatch, sql):
        refused = node.do("add", given=given, key=key, deadline_s=deadline_s)

    assert code(refused) == expected
    assert (tallies(node), keys(node)) == ([], 0)
    # Where nobody knows, to ask again is safe under a key of the client's alone.
    if expected == "shard-reset":
        assert refused.document()["retryable"] is bool(key)
    done = node.do("add", given=given, key=key)
    again = node.do("add", given=given, key=key)

    assert json.loads(done) == {"id": "1", "count": 5}
    assert isinstance(again, Replayed) is bool(key)
    assert tallies(node) == [(1, 5 if key else 10)]


@pytest.mark.parametrize("name", ["take_away", "forget", "add_all", "add_oddly"])
def test_what_is_no_stored_row_is_a_fault_of_the_definition(node: WritingNode, name: str) -> None:
    """A row that is gone, a QuerySet, an object: no client can mend it, and nothing is done."""
    node.do("add", given={"id": "1", "by": 5})
    number = "1" if name in ("take_away", "forget") else "2"
    refused = node.do(name, given={"id": number}, key="k")

    assert (code(refused), refused.status) == ("definition-fault", 500)
    assert (tallies(node), keys(node)) == ([(1, 5)], 0)
