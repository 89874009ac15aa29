"""Both load generators are given the same requests."""

from __future__ import annotations

import json
from random import Random

from tests.benchmarks import rows
from tests.benchmarks.traffic import Traffic, lua_script, renderer

READ = Traffic("127.0.0.1", 8000, "/get_item?id=<key>", headers=(("Authorization", "Bearer k"),))
INSERT = Traffic(
    "127.0.0.1", 8000, "/insert_item", "POST", (("Idempotency-Key", '"b-<fresh>"'),),
    '{"id": "<fresh>"}',
)  # fmt: skip


def test_a_read_is_one_whole_request_of_a_stored_key() -> None:
    """The key is one that is stored, and nothing else changes."""
    asked = renderer(READ, chance=Random(1), fresh_from=0)()

    head, _, rest = asked.partition(b"id=")
    key, _, tail = rest.partition(b" ")
    assert head == b"GET /get_item?"
    assert 1 <= int(key) <= rows.ROWS
    assert tail == b"HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAuthorization: Bearer k\r\n\r\n"


def test_every_insert_has_a_number_of_its_own() -> None:
    """Header and body of one request carry one number, the next request another."""
    render = renderer(INSERT, chance=Random(1), fresh_from=41)
    for number in (42, 43):
        head, _, body = render().partition(b"\r\n\r\n")
        assert f'Idempotency-Key: "b-{number}"'.encode() in head
        assert json.loads(body) == {"id": str(number)}
        assert f"Content-Length: {len(body)}".encode() in head


def test_the_script_for_wrk_counts_its_body_and_prints_the_measurement() -> None:
    """The length is that of the body as sent, and the quotes of a header are escaped."""
    script = lua_script(INSERT, seed=7, fresh_from=41)

    assert "math.randomseed(7)" in script
    assert '"Content-Length: " .. #body' in script
    assert '\\"b-" .. string.format' in script
    assert "MEASURED" in script


def test_traffic_goes_through_json_unchanged() -> None:
    """Our generator is another process: it reads what was written."""
    assert Traffic.from_document(json.loads(json.dumps(INSERT.as_document()))) == INSERT


def test_a_category_has_its_hundred_rows_in_order() -> None:
    """Every list of the benchmark has the same length, by id."""
    for category in (rows.FIRST_CATEGORY, rows.LAST_CATEGORY):
        found = rows.items_of(str(category))
        assert len(found) == rows.LIST_ROWS
        assert {row.category for row in found} == {str(category)}
        assert [row.id for row in found] == sorted(row.id for row in found)
