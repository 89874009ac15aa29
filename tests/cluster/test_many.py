"""Batches over HTTP on a running cluster: the items of each shard together, all of them once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from engine.databases import PostgresServer
from modeldefs.kit.buckets import BUCKET_COUNT, bucket_of
from tests.cluster.clusters import Cluster, shard_tables

FIRST = 91_000_000


@pytest.fixture(autouse=True)
def _left_as_found(cluster: Cluster, postgres_server: PostgresServer) -> Iterator[None]:
    """Remove what a test wrote: others compare all rows of this cluster."""
    yield
    with shard_tables(postgres_server, cluster) as connection:
        connection.execute("SET session_replication_role = replica")  # past the shards' guards
        for number in range(1, cluster.shards + 1):
            gone = f"DELETE FROM s{number}.definitions_user WHERE id >= {FIRST}"
            connection.execute(gone.encode())


def people(*numbers: int) -> list[dict[str, str]]:
    """Return users of this module's own."""
    return [
        {
            "id": str(FIRST + number),
            "first_name": "Ada",
            "last_name": f"Berg {number}",
            "country": "Sweden",
            "address": 'a "quoted" lane\\',
            "city": "Lund",
        }
        for number in numbers
    ]


def batch(
    cluster: Cluster, items: list[dict[str, str]], key: str = "", **options: Any
) -> requests.Response:
    """Send a batch, with a key if one is given."""
    headers = {"Idempotency-Key": key} if key else {}
    return cluster.request(
        "POST", "/insert_users", json={"items": items}, headers=headers, **options
    )


def stored(cluster: Cluster, items: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return the rows with the items' ids, by id."""
    rows: list[dict[str, Any]] = []
    for first in range(0, len(items), 50):
        ids = [item["id"] for item in items[first : first + 50]]
        rows += cluster.get("/get_users", id=ids, limit=50).json()["items"]
    return sorted(rows, key=lambda row: int(row["id"]))


def shard_of(cluster: Cluster, item: dict[str, str]) -> int:
    """Return the place of the shard that owns an item, by the even map of a new cluster."""
    return bucket_of(item["id"]) * cluster.shards // BUCKET_COUNT


def test_items_of_all_shards_are_rows_in_their_order(cluster: Cluster) -> None:
    """The answer has them in the order of the request, whoever owns them."""
    items = people(*reversed(range(1, 1_001)))
    reply = batch(cluster, items)

    assert reply.status_code == 200, reply.text
    assert reply.json() == items
    assert stored(cluster, items) == items[::-1]
    assert len({shard_of(cluster, item) for item in items}) == cluster.shards


def test_what_one_shard_refuses_the_others_have_written(cluster: Cluster) -> None:
    """The problem says of each item whether it is stored, and which one is to blame."""
    items = people(*range(2_001, 2_031))
    bad = shard_of(cluster, items[7])
    cluster.post("/insert_user", **{**items[7], "city": "Oslo"})
    reply = batch(cluster, items)
    problem = reply.json()

    theirs = [n for n, item in enumerate(items) if shard_of(cluster, item) == bad]
    others = [n for n in range(30) if n not in theirs]
    assert (reply.status_code, problem["code"]) == (409, "conflict")
    assert spread(problem["written"]) == {"yes": others, "no": theirs, "unknown": []}
    assert [error["pointer"] for error in problem["errors"]] == ["/items/7"]
    assert problem["retryable"] is False
    assert [row["id"] for row in stored(cluster, items) if row["city"] == "Lund"] == [
        items[n]["id"] for n in others
    ]


def spread(written: dict[str, list[list[int]]]) -> dict[str, list[int]]:
    """Return the places that ranges stand for."""
    return {
        fate: [place for first, last in ranges for place in range(first, last + 1)]
        for fate, ranges in written.items()
    }


def test_a_repeat_with_a_key_gives_the_same_rows_once(cluster: Cluster) -> None:
    """Every shard replays; other items under the key are refused and write nothing."""
    items = people(*range(3_001, 3_051))
    first, again = batch(cluster, items, "twice"), batch(cluster, items, "twice")
    items[0]["city"] = "Oslo"
    other = batch(cluster, items, "twice")

    assert (first.status_code, again.status_code) == (200, 200), first.text
    assert first.content == again.content
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert stored(cluster, items) == first.json()


def test_a_repeat_with_a_key_finishes_what_one_shard_refused(cluster: Cluster) -> None:
    """Those that wrote replay, the other writes now: each row is there once."""
    items = people(*range(4_001, 4_031))
    cluster.post("/insert_user", **items[3])
    assert batch(cluster, items, "finish").status_code == 409
    cluster.post("/delete_user", id=items[3]["id"])
    reply = batch(cluster, items, "finish")

    assert reply.status_code == 200, reply.text
    assert reply.json() == items
    assert "Idempotency-Replayed" not in reply.headers
    assert stored(cluster, items) == items


@pytest.mark.parametrize(
    ("items", "status", "pointer"),
    [
        ([], 400, "/items"),
        (people(*range(5_001, 6_002)), 400, "/items"),
        ([*people(5_001), {**people(5_002)[0], "id": "x"}], 400, "/items/1/id"),
        ([*people(5_001), {"id": "7"}], 400, "/items/1/first_name"),
        ([*people(5_001), {**people(5_002)[0], "fax": "1"}], 400, "/items/1/fax"),
        ([*people(5_001), ["id"]], 400, "/items/1"),
    ],
)
def test_a_flaw_in_one_item_refuses_all(
    cluster: Cluster, items: list[dict[str, str]], status: int, pointer: str
) -> None:
    """Before any shard is asked: the error points at the place, and nothing is stored."""
    reply = batch(cluster, items)

    assert reply.status_code == status
    assert reply.json()["errors"][0]["pointer"] == pointer
    assert stored(cluster, people(5_001)) == []


def test_a_node_writes_what_it_owns_and_nothing_else(cluster: Cluster) -> None:
    """Called directly with an item of another shard it refuses all of them, and says whose."""
    items = people(*range(7_001, 7_101))
    own = [item for item in items if shard_of(cluster, item) == 0]
    mixed = batch(cluster, items, base=cluster.shard_urls[0])
    refused = mixed.json()
    found_before = stored(cluster, items)
    reply = batch(cluster, own, base=cluster.shard_urls[0])

    assert (mixed.status_code, refused["code"]) == (421, "wrong-shard")
    assert refused["written"] == {"yes": [], "no": [[0, 99]], "unknown": []}
    assert found_before == []
    assert (reply.status_code, reply.json()) == (200, own)
    assert stored(cluster, items) == own


def test_a_body_over_the_limit_is_refused(cluster: Cluster) -> None:
    """Of whatever number of items."""
    items = people(8_001)
    items[0]["city"] = "x" * 1_100_000
    reply = batch(cluster, items)

    assert (reply.status_code, reply.json()["code"]) == (413, "body-too-large")
    assert stored(cluster, people(8_001)) == []
