"""Conditional reads of a running cluster: 200 after any commit, else 304.

Everything on this Postgres shares its transaction numbers, so any of the session's clusters may
commit between two requests: a test waits for a 304, and never takes one for granted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.cluster.clusters import Cluster
from tests.cluster.processes import await_true

FIRST_ID = 76_000_000
COUNTRY = "Conditionia"
READS = (
    f"/get_user?country={COUNTRY}",
    f"/get_user?id={FIRST_ID}",
    "/users_by_country",
    "/count_users",
    f"/%67et_user?country={COUNTRY}",  # the way through Django
)


def person(number: int) -> dict[str, str]:
    """Return a user of this module's own."""
    return {
        "id": str(FIRST_ID + number),
        "first_name": "Ada",
        "last_name": "Berg",
        "country": COUNTRY,
        "address": "1 Lane",
        "city": "Lund",
    }


@pytest.fixture
def people(cluster: Cluster) -> Iterator[Cluster]:
    """Return the cluster with a few people, who are gone afterwards."""
    for number in range(6):
        assert cluster.post("/insert_user", **person(number)).status_code == 200
    yield cluster
    for number in range(12):
        assert cluster.post("/delete_user", id=str(FIRST_ID + number)).status_code == 200


def ask(cluster: Cluster, path: str, tag: str, method: str = "GET", **more: Any) -> Any:
    """Send a read that may be answered with 304."""
    return cluster.request(method, path, headers={"If-None-Match": tag}, **more)


def await_unchanged(cluster: Cluster, path: str, **more: Any) -> requests.Response:
    """Return the 304 to a read, once nothing was committed between two requests."""
    tag = '""'
    found: list[requests.Response] = []

    def is_unchanged() -> bool:
        nonlocal tag
        reply = ask(cluster, path, tag, **more)
        assert reply.headers["etag"].startswith('W/"')
        tag = reply.headers["etag"]
        found.append(reply)
        return bool(reply.status_code == 304)

    await_true(is_unchanged)
    assert 200 == found[0].status_code
    assert found[-1].headers["etag"] == found[-2].headers["etag"]
    return found[-1]


@pytest.mark.parametrize("path", READS)
def test_304_until_a_commit_and_200_after_it(people: Cluster, path: str) -> None:
    """Every write is seen by the next conditional read, whatever it wrote and wherever."""
    unchanged = await_unchanged(people, path)
    assert b"" == unchanged.content
    assert "content-type" not in unchanged.headers
    assert "private, no-cache" == unchanged.headers["cache-control"]
    assert "prefer" in unchanged.headers["vary"]
    for number in range(6, 12):
        tag = await_unchanged(people, path).headers["etag"]
        assert people.post("/insert_user", **person(number)).status_code == 200
        after = ask(people, path, tag)
        assert 200 == after.status_code
        assert tag != after.headers["etag"]
        if COUNTRY in path:
            assert number + 1 == len(after.json()["items"])


def test_a_node_says_304_for_its_own_rows(people: Cluster) -> None:
    """Called directly by who goes to the owner: the same promise, by itself."""
    path = f"/get_user?id={FIRST_ID}"
    (base,) = (
        base for base in people.shard_urls
        if people.request("GET", path, base=base).status_code == 200
    )  # fmt: skip
    tag = await_unchanged(people, path, base=base).headers["etag"]
    assert people.post("/update_user", id=str(FIRST_ID), city="Visby").status_code == 200
    after = ask(people, path, tag, base=base)

    assert 200 == after.status_code
    assert ["Visby"] == [row["city"] for row in after.json()["items"]]


def test_a_tag_is_of_one_question(people: Cluster) -> None:
    """Other parameters, another caller or another page are not answered by it."""
    path = f"/get_user?country={COUNTRY}"
    made = people.manage("key", "create", "--owner", "somebody else", "--scope", "*", "--json")
    tag = await_unchanged(people, path).headers["etag"]

    for other in (f"{path}&limit=2", f"/get_user?country={COUNTRY}x", "/get_user"):
        assert 200 == ask(people, other, tag).status_code
    assert made.returncode == 0
    refused = people.request(
        "GET", path, headers={"If-None-Match": tag, "Authorization": "Bearer spk_nobody"}
    )
    assert 401 == refused.status_code


def test_head_has_the_tag_and_post_none(people: Cluster) -> None:
    """HEAD is GET without its body; an answer to POST is for nobody else, not even for later."""
    path = f"/get_user?country={COUNTRY}"
    assert b"" == await_unchanged(people, path, method="HEAD").content
    posted = people.post("/get_user", country=COUNTRY)
    queried = people.request(
        "QUERY", "/get_user", json={"country": COUNTRY}, headers={"If-None-Match": "*"}
    )
    partial = people.request("GET", path, headers={"If-None-Match": "*", "Prefer": "partial"})

    assert (200, 6, "no-store") == (
        posted.status_code, len(posted.json()["items"]), posted.headers["cache-control"]
    )  # fmt: skip
    for reply in (posted, queried, partial):
        assert 200 == reply.status_code
        assert "etag" not in reply.headers


def test_reads_that_nobody_declared_have_no_tag_unasked(people: Cluster) -> None:
    """And those that are declared have theirs, and say how long they may be kept."""
    plain = people.get("/get_user", country=COUNTRY)
    declared = people.get("/airlines")

    assert ("private, no-cache", None) == (
        plain.headers["cache-control"], plain.headers.get("etag")
    )  # fmt: skip
    assert "private, max-age=60, stale-if-error=3600" == declared.headers["cache-control"]
    assert declared.headers["etag"].startswith('W/"')
