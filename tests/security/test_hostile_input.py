"""Hostile input on real gunicorn workers: on every path a problem of the contract, and no effect.

The hand corpus of the HTTP contract and of other systems' advisories; `docs/proofs.md` says which
row is proven where. Front and node are asked alike: they share the reader, not the routes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.endpoints import Endpoint
from modeldefs.wire.problems import STANDARD_PROBLEMS
from tests.cluster.clusters import Cluster
from tests.cluster.processes import await_true
from tests.cluster.raw_http import RawAnswer, exchange

FIRST_ID = 79_500_000
HOST = b"Host: localhost\r\nConnection: close\r\nShardpoint-Timeout-Ms: 30000\r\n"
JSON = b"Content-Type: application/json\r\n"
PATHS = {
    "front": (
        "/get_user", "/insert_user", "/get_usr", "/docs", "/openapi.json", "/healthz", "/metrics",
        "/problems/not-found", "/problems/nope", "/static/nope.css", "/control/v1/",
        "/control/v1/shards/", "/control/v1/nope/", "/nowhere/at/all", "/",
    ),
    "node": (
        "/get_user", "/insert_user", "/get_usr", "/openapi.json", "/metrics", "/_node/health",
        "/_node/enrol", "/_node/map", "/_node/rows/User", "/_node/nope", "/nowhere/at/all", "/",
    ),
}  # fmt: skip
PREFIXES = {
    "front": ("/", "/static/", "/problems/", "/control/v1/", "/docs/", "/get_user/"),
    "node": ("/", "/_node/", "/_node/rows/", "/get_user/"),
}
# What would be elsewhere, or end early, where a path is decoded once too often or too late.
CLIMBS = (
    "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "../../../../etc/passwd",
    "..%5c..%5cetc%5cpasswd", "%5cetc%5cpasswd", "..%252fetc%252fpasswd", "%c0%ae%c0%ae/passwd",
    "%00", "x%00.css", "%0d%0aX-Injected:%201", "%ff", "%e2%80%ae", ";/../manage.py",
    "%2f%2fevil.example", "/evil.example", "\\evil.example",
)  # fmt: skip
LEAKS = (b"Traceback", b"psycopg", b"site-packages", b"definitions_", b"SELECT ", b"root:x:0")
METHODS = ("GET", "POST", "QUERY", "DELETE", "TRACE", "OPTIONS")
SHAPES = {
    "bare": b"",
    "broken JSON": JSON + b"Content-Length: 1\r\n\r\n{",
    "multipart": b"Content-Type: multipart/form-data; boundary=x\r\n"
    b"Content-Length: 7\r\n\r\n--x--\r\n",
    "no type we have": b"Accept: image/png\r\n",
    "forms": b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 4\r\n\r\nid=1",
}


@pytest.fixture(scope="module")
def people(attacked: Cluster) -> Iterator[list[dict[str, str]]]:
    """Return the rows of three people, which are there for this module alone."""
    rows = [
        {
            "id": str(FIRST_ID + number),
            "first_name": "Ada",
            "last_name": "Berg",
            "country": "Sweden",
            "address": "1 Lane",
            "city": "Lund",
        }
        for number in range(3)
    ]
    for row in rows:
        assert attacked.post("/insert_user", **row).status_code == 200
    yield rows
    for row in rows:
        attacked.post("/delete_user", id=row["id"])


@pytest.fixture(autouse=True)
def _unchanged(attacked: Cluster, people: list[dict[str, str]]) -> Iterator[None]:
    """Nothing that a test sends may write."""
    yield
    reply = attacked.get("/get_user", limit=1000)

    assert (reply.status_code, reply.json()["items"]) == (200, people)


def base_of(cluster: Cluster, place: str) -> str:
    """Return where a place is reached."""
    return cluster.url if place == "front" else cluster.shard_urls[0]


def ask(cluster: Cluster, place: str, line: str, rest: bytes = b"") -> RawAnswer:
    """Send one request, byte for byte, with the cluster's key."""
    who = f"Authorization: Bearer {cluster.key}\r\n".encode()
    end = b"" if b"\r\n\r\n" in rest else b"\r\n"
    head = line.encode("latin-1") + b" HTTP/1.1\r\n" + HOST + who
    (answer,) = exchange(base_of(cluster, place), [head + rest + end])
    return answer


def judge(answer: RawAnswer, told: str) -> None:
    """Fail unless an answer that refuses is a problem of the contract, and tells nothing more."""
    assert not any(leak in answer.body for leak in LEAKS), (told, answer)
    assert answer.status < 500, (told, answer)
    if answer.status >= 400:
        assert answer.problem["code"] in STANDARD_PROBLEMS, told
        assert answer.status != 405 or "allow" in answer.headers, told


@pytest.mark.parametrize("place", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_whatever_is_refused_is_a_problem(attacked: Cluster, place: str, shape: str) -> None:
    """By our code, by Django, DRF, ninja or the static files: every status from 400 on, on every
    path and by every method, has the one form; 405 names what is allowed."""
    for path in PATHS[place]:
        for method in METHODS:
            told = f"{method} {path} {shape}"
            judge(ask(attacked, place, f"{method} {path}", SHAPES[shape]), told)


@pytest.mark.parametrize("place", PATHS)
def test_what_is_too_large_is_a_problem_on_every_path(attacked: Cluster, place: str) -> None:
    """Request line, headers and body, also where another framework would have its own limits."""
    for path in PATHS[place]:
        line = ask(attacked, place, f"GET {path}?{'x' * 4_100}")
        headers = ask(attacked, place, f"GET {path}", b"X-Long: " + b"y" * 33_000 + b"\r\n")
        many = ask(attacked, place, f"GET {path}", b"X: y\r\n" * 101)
        assert [(414, "uri-too-long"), (431, "header-too-large"), (431, "header-too-large")] == [
            (answer.status, answer.problem["code"]) for answer in (line, headers, many)
        ], path
        if path == "/_node/rows/User":  # parts of a bulk load, from our own dispatcher alone
            continue
        body = ask(attacked, place, f"POST {path}", JSON + b"Content-Length: 1048577\r\n\r\n")
        assert (413, "body-too-large") == (body.status, body.problem["code"]), path


@pytest.mark.parametrize("place", PREFIXES)
def test_no_path_leads_out(attacked: Cluster, place: str) -> None:
    """Dots, slashes and backslashes in any spelling, NUL, line ends: nothing is found, nothing is
    injected into a header, and no redirect leaves the site."""
    for prefix in PREFIXES[place]:
        for climb in CLIMBS:
            answer = ask(attacked, place, f"GET {prefix}{climb}")
            told = f"{prefix}{climb}: {answer}"
            judge(answer, told)
            assert answer.status != 200, told
            assert "x-injected" not in answer.headers
            goes = answer.headers.get("location", "/")
            assert goes.startswith("/"), told
            assert goes[1:2] not in ("/", "\\"), told


# What other systems have read as an operator, a path into the row, or an option of their own.
NAMES = (
    "country__startswith", "country__regex", "_connector", "_negated", "pk", "bucket", "id__in",
    "country.city", "-country", "order", "order_by", "fields", "select", "where", "filter", "or",
    "country[$ne]", "country[]", "$where", "__class__", "self", "using", "db", "format",
    "callback", "sp.tenant", "Country", "country ", "offset", "cursor", "_method",
)  # fmt: skip


@pytest.mark.parametrize("place", PATHS)
def test_no_other_name_is_a_parameter(attacked: Cluster, place: str) -> None:
    """Lookups, dotted and signed columns, operators: each is unknown, in the URL and in a body."""
    for name in NAMES:
        url = ask(attacked, place, f"GET /get_user?{quote(name, safe='')}=Sweden")
        body = json.dumps({name: "Sweden"}).encode()
        sent = JSON + b"Content-Length: %d\r\n\r\n" % len(body) + body
        for answer in (url, ask(attacked, place, "QUERY /get_user", sent)):
            assert (400, "invalid-request") == (answer.status, answer.problem["code"]), name
            assert ["unknown-parameter"] == [each["code"] for each in answer.problem["errors"]]


TEXTS = (
    "' OR '1'='1", "' OR 1=1 --", "'; DROP TABLE definitions_user; --", "' UNION SELECT 1 --",
    "1; SELECT pg_sleep(9)", "\\'; SELECT 1 --", "$1", "$$ OR true $$", "%s", "%(country)s",
    "{country}", "{0.__class__}", "%", "_", "*", ".*", "(?i)sweden", "Sweden%", "Swe_en",
    "Sweden' COLLATE \"C", "ＳＷＥＤＥＮ", "Sweden\u200b", "Sweden\r\nX: y", "null", "None",
    "true", "[]", "{}", '{"$ne": null}', "<script>alert(1)</script>", "${7*7}", "{{7*7}}",
    "../../etc/passwd", "\ufeffSweden", "\U0001f600", "Sweden\t", "-1", "NaN", "0x10", "\x7f",
)  # fmt: skip


def _reads() -> list[Endpoint[Any, Any]]:
    return [each for each in current_catalog().by_number if each.kind != "mutation"]


def test_no_text_is_anything_but_a_value(attacked: Cluster, people: list[dict[str, str]]) -> None:
    """In parameters of every read: either 400, or an answer that knows no such value; of people
    none, whom a condition that always holds would show. The people's reads meet every text, the
    others take turns."""
    turn = 0
    for endpoint in _reads():
        required = {s.name: "Lund" for s in endpoint.parameters if s.required}
        for spec in endpoint.parameters:
            is_peoples = endpoint.model.__name__ == "User"
            texts = TEXTS if is_peoples else [TEXTS[(turn + n) % len(TEXTS)] for n in range(5)]
            turn += 5
            for text in texts:
                given = {**required, spec.name: text}
                reply = attacked.get(f"/{endpoint.name}", **given)
                told = f"{endpoint.name}({given}): {reply.text}"
                assert reply.status_code in (200, 400, 404), told
                if reply.status_code == 200 and endpoint.shape == "page":
                    found = {row.get("id") for row in reply.json()["items"]}
                    assert not found & {row["id"] for row in people}, told


BODIES = {
    "nested": (b'{"country":' + b"[" * 500_000, "too-deep"),
    "nested and closed": (b"[" * 500_000 + b"]" * 500_000, "too-deep"),
    "nested objects": (b'{"a":' * 190_000, "too-deep"),
    "many names": (
        b"{" + b",".join(b'"a%d":1' % number for number in range(90_000)) + b"}",
        "too-long",
    ),
    "one name often": (b"{" + b",".join([b'"country":"a"'] * 70_000) + b"}", "too-long"),
    "a long integer": (b'{"id":' + b"9" * 1_000_000 + b"}", "out-of-range"),
    "a long integer as text": (b'{"id":"' + b"9" * 1_000_000 + b'"}', "out-of-range"),
    "a long fraction": (b'{"id":0.' + b"9" * 1_000_000 + b"}", "wrong-type"),
    "a large exponent": (b'{"id":1e' + b"9" * 1_000_000 + b"}", "wrong-type"),
    "escapes": (b'{"country":"' + b"\\ud83d" * 170_000 + b'"}', "invalid-unicode"),
    "escaped NULs": (b'{"country":"' + b"\\u0000" * 170_000 + b'"}', "nul-character"),
    "an open text": (b'{"country":"' + b"a" * 1_000_000, "malformed-body"),
    "blanks": (b" " * 1_048_000, "malformed-body"),
    "many values": (b'{"id":[' + b"1," * 500_000 + b"1]}", "too-long"),
    "many texts": (b'{"id":[' + b'"",' * 330_000 + b'""]}', "too-long"),
    "texts side by side": (b'""' * 450_000 + b"," * 80_000, "too-long"),
}


@pytest.mark.parametrize("place", PATHS)
@pytest.mark.parametrize("name", BODIES)
def test_the_worst_body_of_a_megabyte_is_refused(attacked: Cluster, place: str, name: str) -> None:
    """Whatever a checker could take too long for is refused for the first reason there is, and the
    same worker answers the next request."""
    body, code = BODIES[name]
    sent = JSON + b"Content-Length: %d\r\n\r\n" % len(body) + body
    answer = ask(attacked, place, "QUERY /get_user", sent)

    assert (400, "invalid-request") == (answer.status, answer.problem["code"])
    assert code == answer.problem["errors"][0]["code"]
    assert len(answer.body) < 100_000
    assert 200 == ask(attacked, place, "GET /get_user?limit=1", b"Prefer: partial\r\n").status


def test_a_key_that_reads_writes_nothing(attacked: Cluster) -> None:
    """Every mutation and every batch is 403 to it and names the scope."""
    told = attacked.manage("key", "create", "--owner", "reader", "--scope", "*:*:read", "--json")
    made = json.loads(told.stdout)
    key = made["key"] if isinstance(made, dict) else made[0]["key"]
    headers = {"Authorization": f"Bearer {key}"}
    base = attacked.url

    def is_known() -> bool:
        asked = (
            requests.get(base + "/count_users", headers=headers, timeout=40) for _ in range(12)
        )
        return all(reply.status_code == 200 for reply in asked)  # of either worker

    await_true(is_known)
    for endpoint in current_catalog().by_number:
        if endpoint.kind != "mutation":
            continue
        reply = attacked.request("POST", f"/{endpoint.name}", base=base, headers=headers, json={})
        assert (403, "forbidden") == (reply.status_code, reply.json()["code"]), endpoint.name
        assert f":{endpoint.name}:write" in reply.json()["detail"]
