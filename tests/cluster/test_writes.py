"""Writes over HTTP on a running cluster: a key makes a write happen once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.cluster.clusters import Cluster

PEOPLE = range(1, 6)  # the numbers of all that the tests write


def person(number: int) -> dict[str, str]:
    """Return a user of this module's own."""
    return {
        "id": str(78_000_000 + number),
        "first_name": "Ada",
        "last_name": "Berg",
        "country": "Sweden",
        "address": "1 Lane",
        "city": "Lund",
    }


@pytest.fixture(autouse=True)
def _cleared(cluster: Cluster) -> Iterator[None]:
    """Leave the shared cluster as it was: other tests compare its rows with another database's."""
    yield
    for number in PEOPLE:
        cluster.post("/delete_user", id=person(number)["id"])
    assert [number for number in PEOPLE if stored(cluster, number)] == []


def write(cluster: Cluster, path: str, key: str, **members: Any) -> requests.Response:
    """Send a write with a key."""
    return cluster.request("POST", path, json=members, headers={"Idempotency-Key": key})


def stored(cluster: Cluster, number: int) -> list[dict[str, Any]]:
    """Return the rows with a person's id."""
    found: list[dict[str, Any]] = cluster.get("/get_user", id=person(number)["id"]).json()["items"]
    return found


def test_fifty_writes_with_one_key_make_one_row(cluster: Cluster) -> None:
    """One of them does it; the others are answered the same, and say that it is a replay."""
    with ThreadPoolExecutor(50) as pool:
        replies = list(
            pool.map(lambda _: write(cluster, "/insert_user", "fifty", **person(1)), range(50))
        )
    bodies = {reply.content for reply in replies if reply.status_code == 200}
    told = [reply for reply in replies if reply.status_code != 200]

    assert len(bodies) == 1
    assert {reply.json()["code"] for reply in told} <= {"in-flight"}
    first = [r for r in replies if r.ok and "Idempotency-Replayed" not in r.headers]
    assert len(first) == 1
    assert len(stored(cluster, 1)) == 1


def test_a_key_used_for_something_else_is_refused(cluster: Cluster) -> None:
    """Nothing is written by the second request."""
    assert write(cluster, "/insert_user", "reused", **person(2)).status_code == 200
    reply = write(cluster, "/insert_user", "reused", **{**person(2), "city": "Oslo"})

    assert (reply.status_code, reply.json()["code"]) == (422, "idempotency-key-reused")
    assert [row["city"] for row in stored(cluster, 2)] == ["Lund"]


@pytest.mark.parametrize("key", ["with space", "ä".encode().decode("latin-1"), "x" * 256])
def test_what_is_no_key_is_refused(cluster: Cluster, key: str) -> None:
    """The request is refused before anything is written."""
    reply = write(cluster, "/insert_user", key, **person(3))

    assert (reply.status_code, reply.json()["code"]) == (400, "invalid-request")
    assert stored(cluster, 3) == []


def test_python_mutations_keep_keys_too(cluster: Cluster) -> None:
    """Without a change, `update_user` asks whether the user is there: Python in a thread."""
    number = person(4)["id"]
    before = write(cluster, "/update_user", "python", id=number)
    write(cluster, "/insert_user", "python", **person(4))
    again = write(cluster, "/update_user", "python", id=number)

    assert (before.json(), again.json()) == (False, False)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert write(cluster, "/update_user", "python-2", id=number).json() is True


def test_without_a_key_each_request_is_one_of_its_own(cluster: Cluster) -> None:
    """The dispatcher's own key is for its own retry: two requests of a client are two writes."""
    first = cluster.post("/insert_user", **person(5))
    second = cluster.post("/insert_user", **person(5))

    assert (first.status_code, second.status_code) == (200, 409)
    assert "Idempotency-Replayed" not in first.headers
