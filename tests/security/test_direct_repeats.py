"""A key makes a write happen once at a node that is called directly, by either of its workers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import requests

from tests.cluster.clusters import Cluster

PARALLEL = 50
PERSON = {
    "id": "79400001",
    "first_name": "Ada",
    "last_name": "Berg",
    "country": "Sweden",
    "address": "1 Lane",
    "city": "Lund",
}


def test_fifty_direct_writes_with_one_key_make_one_row(attacked: Cluster) -> None:
    """One of them does it; the others are answered the same, or that it is still running."""
    reads = f"/get_user?id={PERSON['id']}"
    owner = next(url for url in attacked.shard_urls if attacked.request("GET", reads, base=url).ok)
    headers = {
        "Authorization": f"Bearer {attacked.key}",
        "Idempotency-Key": "fifty-direct",
        "Shardpoint-Timeout-Ms": "30000",
    }

    def write(_: int) -> requests.Response:
        return requests.post(f"{owner}/insert_user", json=PERSON, headers=headers, timeout=40)

    with ThreadPoolExecutor(PARALLEL) as pool:
        replies = list(pool.map(write, range(PARALLEL)))
    stored = attacked.get("/get_user", id=PERSON["id"]).json()["items"]
    attacked.post("/delete_user", id=PERSON["id"])
    done = [reply for reply in replies if reply.ok]
    first = [reply for reply in done if "Idempotency-Replayed" not in reply.headers]

    assert {r.json()["code"] for r in replies if not r.ok} <= {"in-flight"}
    assert [PERSON] == [reply.json() for reply in first]
    assert 1 == len({reply.content for reply in done})
    assert [PERSON] == stored
