"""A running cluster answers the same whichever way a request takes: protocol, or Django and ninja.

A data endpoint's path with a percent-encoded letter is not one that the protocol claims: it goes
to Django, which decodes it and has the same endpoint. What the property tests show with a backend
of their own is shown here with processes, shards and rows.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from unittest.mock import Mock

import pytest

from modeldefs.kit.catalog import Catalog
from modeldefs.kit.front import DataFront
from tests.cluster.clusters import PARTIAL, Cluster
from tests.cluster.processes import await_true
from tests.cluster.raw_http import connect, read_to_the_end
from tests.property.two_paths import Comparable, comparable

FIRST_ID = 75_000_000
ROWS = 7


def person(number: int) -> dict[str, str]:
    """Return a user of this module's own."""
    return {
        "id": str(FIRST_ID + number),
        "first_name": f"Ädä {number}",
        "last_name": "Berg",
        "country": "Twoland",
        "address": "1 Lane",
        "city": "Lund",
    }


@dataclass(frozen=True, slots=True)
class Question:
    """One request, but for the spelling of its path."""

    endpoint: str
    query: str = ""
    method: str = "GET"
    body: bytes | None = None
    headers: tuple[str, ...] = ("Accept: */*",)
    key: str = "all"

    def sent(self, path: str, keys: dict[str, str]) -> bytes:
        """Return the bytes, for one spelling of the path."""
        target = f"{path}?{self.query}" if self.query else path
        lines = [f"{self.method} {target} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += self.headers
        if keys[self.key]:
            lines.append(f"Authorization: Bearer {keys[self.key]}")
        if self.body is not None:
            lines.append(f"Content-Length: {len(self.body)}")
            if not any(line.startswith("Content-Type") for line in lines):
                lines.append("Content-Type: application/json")
        return "\r\n".join([*lines, "", ""]).encode() + (self.body or b"")


def _body(**members: object) -> bytes:
    return json.dumps(members).encode()


POINT = f"id={FIRST_ID}"
TAKEN = _body(**person(0))
RIGHT = [
    Question("get_user", POINT),
    Question("get_user", "country=Twoland"),
    Question("get_user", "country=Twoland&limit=3"),
    Question("get_user", "country=nowhere"),
    Question("get_user", f"id={FIRST_ID - 1}"),
    Question("get_user", POINT, method="HEAD"),
    Question("get_user", method="POST", body=_body(id=str(FIRST_ID))),
    Question("get_user", method="QUERY", body=_body(country="Twoland")),
    Question("get_user", POINT, method="OPTIONS"),
    Question("count_users"),
    Question("users_by_country"),
    Question("get_user", POINT, headers=("Shardpoint-Timeout-Ms: 9000", "Cookie: csrftoken=x")),
    Question("get_user", POINT, headers=("X-Request-Id: mine", "Origin: https://a.example")),
    Question("update_user", method="POST", body=_body(id=str(FIRST_ID), city="Lund")),
]
WRONG = [
    Question("get_user", "cuontry=Sweden"),
    Question("get_user", "id=1&id=2"),
    Question("get_user", "id=%D9%A1&country=%00&limit=0&nope"),
    Question("get_user", "country=%FF"),
    Question("get_user", "limit=1001"),
    Question("get_user", "after=AAAA"),
    Question("get_user", POINT, body=b"{}"),
    Question("get_user", POINT, method="QUERY", body=b"{}"),
    Question("get_user", POINT, method="PUT"),
    Question("get_user", POINT, headers=("Accept: text/html",)),
    Question("get_user", POINT, headers=("Shardpoint-Timeout-Ms: 0",)),
    Question("get_user", POINT, headers=("Api-Version: 1", "Content-Encoding: gzip")),
    Question("get_user", method="POST", body=b'{"id": 1, "id": 2}'),
    Question("get_user", method="POST", body=b'{"country": "\\ud800"}'),
    Question("get_user", method="POST", body=b"[" * 5_000),
    Question("get_user", method="POST", body=b"\xff"),
    Question("get_user", method="POST", body=b"id=1", headers=("Content-Type: text/plain",)),
    Question("get_user", method="POST", body=b" " * (1 << 20)),
    Question("get_user", method="POST", body=b" " * ((1 << 20) + 1)),
    Question("insert_user", method="POST", body=_body(id="1")),
    Question("insert_user", POINT, method="HEAD"),
    Question("insert_user", method="POST", body=TAKEN),
    Question("insert_user", method="POST", body=TAKEN, headers=("Idempotency-Key: two ways",)),
    Question("delete_user", "id=1"),
    Question("get_usr", POINT),
    Question("nobody"),
]
NOBODYS = [
    Question(endpoint, query, method=method, body=body, key=key)
    for key in ("none", "junk", "spoilt")
    for endpoint, query, method, body in (
        ("get_user", POINT, "GET", None),
        ("get_user", "nope=1", "GET", None),
        ("get_user", POINT, "OPTIONS", None),
        ("get_user", POINT, "DELETE", None),
        ("insert_user", "", "POST", TAKEN),
        ("nobody", "", "GET", None),
    )
]
READERS = [
    Question("get_user", POINT, key="reader"),
    Question("count_users", key="reader"),
    Question("insert_user", method="POST", body=TAKEN, key="reader"),
    Question("nobody", key="reader"),
]


def spellings(endpoint: str) -> list[str]:
    """Return paths that mean the endpoint, the first one being its own."""
    every = "".join(f"%{ord(letter):02x}" for letter in endpoint)
    return [
        f"/{endpoint}",
        f"/%{ord(endpoint[0]):02X}{endpoint[1:]}",
        f"/{endpoint[:-1]}%{ord(endpoint[-1]):02x}",
        f"/{every}",
    ]


@pytest.fixture(scope="module")
def keys(cluster: Cluster) -> dict[str, str]:
    """Return keys by what they may do; the reader's is one that every worker knows by now."""
    made = cluster.manage(
        "key", "create", "--owner", "two ways", "--scope", "User@1:get_user:read", "--json"
    )
    told = json.loads(made.stdout)
    reader = (told if isinstance(told, dict) else told[0])["key"]
    for url in (cluster.url, *cluster.shard_urls):
        _await_key(cluster, url, reader)
    spoilt = cluster.key[:-10] + "AAAAAAAAAA"
    return {
        "all": cluster.key, "reader": reader, "none": "", "junk": "junk", "spoilt": spoilt,
    }  # fmt: skip


def _await_key(cluster: Cluster, url: str, key: str) -> None:
    who = {"Authorization": f"Bearer {key}", **PARTIAL}
    await_true(
        lambda: (
            cluster.request("GET", "/get_user?limit=1", base=url, headers=who).status_code == 200
        )
    )


@pytest.fixture(scope="module", autouse=True)
def _people(cluster: Cluster) -> Iterator[None]:
    """Store some users, and take them away again."""
    for number in range(ROWS):
        assert cluster.post("/insert_user", **person(number)).status_code == 200
    yield
    for number in range(ROWS):
        assert cluster.post("/delete_user", id=person(number)["id"]).json() is True


def _asked(url: str, question: Question, path: str, keys: dict[str, str]) -> Comparable:
    with connect(url) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before its end
            peer.sendall(question.sent(path, keys))
        return comparable(read_to_the_end(peer))


def _same(url: str, question: Question, keys: dict[str, str]) -> int:
    """Ask every way; return the status that all have."""
    own, *others = spellings(question.endpoint)
    fast = _asked(url, question, own, keys)
    for path in others:
        assert fast == _asked(url, question, path, keys), path
    return int(fast[0].split(b" ")[1])


def test_other_spellings_are_not_the_protocols(catalog: Catalog) -> None:
    """Else the tests below would compare one way with itself."""
    front = DataFront(
        catalog=catalog,
        backend=Mock(),
        authenticate=Mock(),
        cursor_key=b"",
        clock=time.time,
        quotas=Mock(),
    )
    for endpoint in catalog.endpoints:
        own, *others = spellings(endpoint)

        assert front.claims(own.encode())
        assert not any(front.claims(other.encode()) for other in others)


@pytest.mark.parametrize("question", RIGHT, ids=repr)
def test_right_requests(cluster: Cluster, keys: dict[str, str], question: Question) -> None:
    """Status, headers and body are equal byte for byte, at the front and at each node."""
    assert _same(cluster.url, question, keys) in (200, 204)
    for url in cluster.shard_urls:
        assert _same(url, question, keys) in (200, 204, 421)


@pytest.mark.parametrize("question", WRONG, ids=lambda question: repr(question)[:120])
def test_wrong_requests(cluster: Cluster, keys: dict[str, str], question: Question) -> None:
    """The refusal is one and the same, down to the order of its entries."""
    for url in (cluster.url, cluster.shard_urls[0]):
        assert 400 <= _same(url, question, keys) < 500


@pytest.mark.parametrize("question", NOBODYS, ids=repr)
def test_requests_without_a_key(
    cluster: Cluster, keys: dict[str, str], question: Question
) -> None:
    """Nobody learns more by one way than by the other, and that is nothing."""
    for url in (cluster.url, cluster.shard_urls[0]):
        assert _same(url, question, keys) == 401


@pytest.mark.parametrize("question", READERS, ids=repr)
def test_requests_of_who_may_little(
    cluster: Cluster, keys: dict[str, str], question: Question
) -> None:
    """Scopes hold on both ways."""
    expected = {"get_user": 200, "nobody": 404}.get(question.endpoint, 403)

    assert _same(cluster.url, question, keys) == expected


def test_cursors_go_on_by_either_way(cluster: Cluster, keys: dict[str, str]) -> None:
    """A walk may change its way on each page: no row is missing, none comes twice."""
    paths = spellings("get_user")
    rows, query = [], "country=Twoland&limit=2"
    for turn in range(ROWS):
        path = paths[turn % len(paths)]
        page = json.loads(_asked(cluster.url, Question("get_user", query), path, keys)[2])
        rows += page["items"]
        if page["next"] is None:
            break
        query = f"country=Twoland&limit=2&after={page['next']}"

    assert [person(number) for number in range(ROWS)] == rows


def test_a_write_by_one_way_is_replayed_by_the_other(
    cluster: Cluster, keys: dict[str, str]
) -> None:
    """A key is one key: the row is written once, and each repeat gets the same answer."""
    fresh = person(ROWS)
    question = Question(
        "insert_user", method="POST", body=_body(**fresh), headers=("Idempotency-Key: both",)
    )
    answers = [_asked(cluster.url, question, path, keys) for path in spellings("insert_user")]
    stored = cluster.get("/get_user", id=fresh["id"]).json()["items"]
    deleted = cluster.post("/delete_user", id=fresh["id"]).json()

    assert {b"HTTP/1.1 200 OK"} == {answer[0] for answer in answers}
    assert 1 == len({answer[2] for answer in answers})
    assert (b"idempotency-replayed", b"true") not in answers[0][1]
    assert all((b"idempotency-replayed", b"true") in answer[1] for answer in answers[1:])
    assert ([fresh], True) == (stored, deleted)
