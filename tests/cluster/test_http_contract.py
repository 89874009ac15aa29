"""The HTTP contract on a running cluster: each wrong request gets its own code."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.cluster.clusters import PARTIAL, Cluster

ADA = {
    "id": "77000001",
    "first_name": "Ada",
    "last_name": "Berg",
    "country": "Sweden",
    "address": "1 Lane",
    "city": "Lund",
}
LONE_SURROGATE = b'{"prefix": "\\ud800"}'


def refusal(reply: requests.Response) -> tuple[int, str, list[str]]:
    """Return status, code and the codes of all errors of a problem, checking its shape."""
    assert reply.headers["content-type"] == "application/problem+json", reply.text
    told: dict[str, Any] = reply.json()
    assert told["status"] == reply.status_code
    assert told["type"] == f"/problems/{told['code']}"
    assert {"title", "detail", "instance", "request_id", "retryable"} <= set(told)
    return reply.status_code, told["code"], [each["code"] for each in told.get("errors", [])]


URL_BREACHES = [
    ("get_user", "cuontry=Sweden", "unknown-parameter"),
    ("get_user", "country__startswith=S", "unknown-parameter"),
    ("get_user", "_connector=OR", "unknown-parameter"),
    ("get_user", "country=a&country=b", "duplicate"),
    ("get_user", "id=1_000", "wrong-type"),
    ("get_user", "id=%201", "wrong-type"),
    ("get_user", "id=1.0", "wrong-type"),
    ("get_user", "id=1e3", "wrong-type"),
    ("get_user", "id=true", "wrong-type"),
    ("get_user", "id=", "wrong-type"),
    ("get_user", "id=%D9%A1", "wrong-type"),
    ("get_user", "id=9223372036854775808", "out-of-range"),
    ("get_user", "id=" + "9" * 4000, "out-of-range"),
    ("get_user", "country=%00", "nul-character"),
    ("get_user", "country=%FF", "bad-utf8"),
    ("get_user", "country=%ED%A0%80", "bad-utf8"),
    ("get_user", "limit=1001", "limit-too-large"),
    ("get_user", "limit=0", "out-of-range"),
    ("get_user", "limit=ten", "wrong-type"),
    ("flights_by_carrier", "month=1", "missing"),
    ("flights_by_carrier", "carrier=UA&month=2147483648", "out-of-range"),
    ("flights_in_bad_weather", "visibility=NaN", "not-finite"),
    ("flights_in_bad_weather", "visibility=1e999", "not-finite"),
    ("flights_of_plane", "tailnum=N14228&since=2013-01-01T00:00:00", "wrong-type"),
    ("flights_of_plane", "tailnum=N14228&since=1700000000", "wrong-type"),
]


@pytest.mark.parametrize(("endpoint", "query", "code"), URL_BREACHES)
def test_a_breach_in_the_url_is_refused_before_any_sql(
    cluster: Cluster, endpoint: str, query: str, code: str
) -> None:
    """Each breach of the parameters' contract is a 400 with its code; never an answer."""
    status, problem, errors = refusal(cluster.request("GET", f"/{endpoint}?{query}"))

    assert (400, "invalid-request", code) == (status, problem, errors[0])


BODY_BREACHES = [
    ("get_user", b'{"cuontry": "Sweden"}', "unknown-parameter"),
    ("get_user", b'{"country": "a", "country": "b"}', "duplicate"),
    ("get_user", b'{"id": 9007199254740993}', "out-of-range"),
    ("get_user", b'{"id": 1.0}', "wrong-type"),
    ("get_user", b'{"id": true}', "wrong-type"),
    ("get_user", b'{"id": [1]}', "wrong-type"),
    ("get_user", b'{"country": null}', "wrong-type"),
    ("get_user", b'{"country": 5}', "wrong-type"),
    ("get_user", b'{"country": "a\\u0000"}', "nul-character"),
    ("find_users", LONE_SURROGATE, "invalid-unicode"),
    ("flights_in_bad_weather", b'{"visibility": NaN}', "not-finite"),
    ("flights_in_bad_weather", b'{"visibility": "1.0"}', "wrong-type"),
    ("flights_by_carrier", b'{"carrier": "UA", "month": "1"}', "wrong-type"),
    ("get_user", b'{"country": ', "malformed-body"),
    ("get_user", b"[]", "malformed-body"),
    ("get_user", b"", "malformed-body"),
    ("get_user", b'{"country": "\xff"}', "bad-utf8"),
    ("get_user", b"[" * 33, "too-deep"),
    ("get_user", b"[" * 100_000, "too-deep"),
]


@pytest.mark.parametrize(("endpoint", "body", "code"), BODY_BREACHES)
@pytest.mark.parametrize("method", ["POST", "QUERY"])
def test_a_breach_in_the_body_is_refused(
    cluster: Cluster, method: str, endpoint: str, body: bytes, code: str
) -> None:
    """JSON bodies are read as strictly as URLs, by POST and by QUERY alike."""
    if not body and method == "POST":
        body = b" "  # a POST without a body may carry its parameters in the URL
    reply = cluster.request(
        method,
        f"/{endpoint}",
        data=body or b" ",
        headers={"Content-Type": "application/json"},
    )
    status, problem, errors = refusal(reply)

    assert (400, "invalid-request", code) == (status, problem, errors[0])


def test_every_breach_is_told_at_once(cluster: Cluster) -> None:
    """One refusal lists all that is wrong, each with its parameter."""
    told = cluster.get("/flights_by_carrier", month="x", nope="1").json()
    found = {(each["parameter"], each["code"]) for each in told["errors"]}

    assert {
        ("month", "wrong-type"),
        ("nope", "unknown-parameter"),
        ("carrier", "missing"),
    } == found


def test_one_meaning_by_every_verb(cluster: Cluster) -> None:
    """GET, QUERY and POST of a read give the same rows; HEAD gives the same length."""
    cluster.post("/insert_user", **ADA)
    by_get = cluster.get("/get_user", id=ADA["id"])
    by_post = cluster.post("/get_user", id=ADA["id"])
    by_query = cluster.request("QUERY", "/get_user", json={"id": ADA["id"]})
    by_head = cluster.request("HEAD", f"/get_user?id={ADA['id']}")
    cluster.post("/delete_user", id=ADA["id"])

    assert [ADA] == by_get.json()["items"]
    assert by_get.content == by_post.content == by_query.content
    assert (b"", str(len(by_get.content))) == (by_head.content, by_head.headers["content-length"])


def test_methods_are_those_of_the_kind(cluster: Cluster) -> None:
    """Another method is 405 with Allow; nothing is written by it."""
    for method, path, allowed in (
        ("PUT", "/get_user", "GET, HEAD, OPTIONS, POST, QUERY"),
        ("GET", "/delete_user?id=1", "OPTIONS, POST"),
        ("HEAD", "/insert_user?id=1", "GET, OPTIONS, POST"),
    ):
        reply = cluster.request(method, path)
        if method == "HEAD":  # a link preview must not write; a HEAD has no body to look at
            assert (405, allowed) == (reply.status_code, reply.headers["allow"])
            continue
        status, code, _ = refusal(reply)
        assert (405, "method-not-allowed", allowed) == (status, code, reply.headers["allow"])
    options = cluster.request("OPTIONS", "/get_user")

    assert (204, "GET, HEAD, OPTIONS, POST, QUERY") == (
        options.status_code,
        options.headers["allow"],
    )


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, b"{}", 415, "unsupported-media-type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"id=1", 415,
         "unsupported-media-type"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--", 415,
         "unsupported-media-type"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"{}", 415,
         "unsupported-media-type"),
        ({"Content-Type": "application/json"}, b" " * (1_048_576 + 1), 413, "body-too-large"),
        ({"Content-Type": "application/json", "Accept": "text/html"}, b"{}", 406,
         "not-acceptable"),
        ({"Content-Type": "application/json", "Shardpoint-Timeout-Ms": "99999"}, b"{}", 400,
         "invalid-request"),
    ],
)  # fmt: skip
def test_the_gate_before_the_parser(
    cluster: Cluster, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    """Size, type and encoding of a body are judged before it is read."""
    reply = cluster.request("POST", "/get_user", data=body, headers=headers)

    assert (status, code) == refusal(reply)[:2]


def test_who_may_call(cluster: Cluster) -> None:
    """No key, junk, and a wrong secret get one and the same 401; a missing scope gets 403 with
    the scope's name, and the write it asked for did not happen."""
    made = json.loads(
        cluster.manage(
            "key", "create", "--owner", "reader", "--scope", "User@1:get_user:read", "--json"
        ).stdout
    )
    key = made["key"] if isinstance(made, dict) else made[0]["key"]
    wrong = key[:-10] + "AAAAAAAAAA"
    bodies = set()
    for header in ({}, {"Authorization": "Bearer junk"}, {"Authorization": f"Bearer {wrong}"}):
        reply = requests.get(cluster.url + "/get_user", headers=header, timeout=10)
        status, code, _ = refusal(reply)
        assert (401, "unauthorized") == (status, code)
        bodies.add(reply.json()["detail"])
    reader = {"Authorization": f"Bearer {key}"}
    end = _until(cluster, reader)
    refused = requests.post(cluster.url + "/insert_user", json=ADA, headers=reader, timeout=10)

    assert 1 == len(bodies)
    assert end == 200
    assert (403, "forbidden") == refusal(refused)[:2]
    assert "User@1:insert_user:write" in refused.json()["detail"]
    assert [] == cluster.get("/get_user", id=ADA["id"]).json()["items"]


def _until(cluster: Cluster, headers: dict[str, str]) -> int:
    """Return the status once a new key has reached the front, which polls each second."""
    for _ in range(200):
        reply = requests.get(cluster.url + "/get_user?limit=1", headers=headers, timeout=10)
        if reply.status_code != 401:
            return reply.status_code
    return 401


def test_unknown_endpoints_name_the_nearest(cluster: Cluster) -> None:
    """A misspelt path is 404 and says what was probably meant."""
    reply = cluster.get("/get_usr")

    assert (404, "unknown-endpoint") == refusal(reply)[:2]
    assert "did you mean 'get_user'?" in reply.json()["detail"]


def test_other_paths_answer_problems_too(cluster: Cluster) -> None:
    """Django's and DRF's own refusals have the same shape as those of data endpoints."""
    assert (404, "not-found") == refusal(cluster.get("/nowhere/at/all"))[:2]
    assert (401, "unauthorized") == refusal(cluster.get("/control/v1/shards/"))[:2]


def test_a_malformed_request_is_a_problem(cluster: Cluster) -> None:
    """What is no HTTP gets a problem too, and the connection is closed."""
    place = urlsplit(cluster.url)
    with socket.create_connection((place.hostname, place.port), timeout=10) as peer:
        peer.sendall(b"GET /get_user?country=United States HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while block := peer.recv(65536):
            answer += block

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert b'"code":"invalid-request"' in answer


def test_cursors_cannot_be_bent(cluster: Cluster) -> None:
    """An altered cursor, one of another endpoint, and one of other parameters are refused."""
    for number in range(3):
        cluster.post("/insert_user", **{**ADA, "id": str(88000001 + number)})
    cursor = cluster.get("/get_user", country="Sweden", limit=1).json()["next"]
    cases = [
        ("/get_user", {"country": "Sweden", "after": cursor[:-2] + "AA"}),
        ("/get_user", {"country": "Norway", "after": cursor}),
        ("/users_in_city", {"city": "Lund", "after": cursor}),
        ("/get_user", {"country": "Sweden", "after": "!!"}),
    ]
    codes = [refusal(cluster.get(path, **params))[1] for path, params in cases]
    for number in range(3):
        cluster.post("/delete_user", id=str(88000001 + number))

    assert ["cursor-invalid"] * 4 == codes


def test_a_node_asked_directly_names_the_owner(cluster: Cluster) -> None:
    """A direct call for another shard's bucket is 421 and says whose it is; the owner answers.
    One that needs every shard is 421 too, unless the node's part is what is asked for."""
    cluster.post("/insert_user", **ADA)
    statuses, owners = [], set()
    for url in cluster.shard_urls:
        reply = cluster.request("GET", f"/get_user?id={ADA['id']}", base=url)
        statuses.append(reply.status_code)
        if reply.status_code == 421:
            owners.add(reply.json()["owner"]["url"])
        else:
            assert [ADA] == reply.json()["items"]
            answered = url
    scattered = cluster.request("GET", "/count_users", base=answered, headers=PARTIAL)
    whole = cluster.request("GET", "/count_users", base=answered)
    cluster.post("/delete_user", id=ADA["id"])

    assert [200, 421, 421] == sorted(statuses)
    assert {answered} == owners
    assert 0 < scattered.json()["shards"]["coverage"] < 1
    assert "shardpoint-coverage" in scattered.headers
    assert (421, "wrong-shard") == refusal(whole)[:2]
    assert whole.json()["coverage"] == pytest.approx(scattered.json()["shards"]["coverage"], 1e-5)
    assert whole.json()["retryable"] is False


def test_the_first_users_lines_work_as_written(cluster: Cluster) -> None:
    """The lines of the first users' letter give the rows that they expected."""
    before = cluster.get("/get_user", id=321).json()["items"]
    cluster.post("/delete_user", id="321")
    written = cluster.request(
        "GET",
        "/insert_user?id=321&first_name=Mary&last_name=Smith&country=Australia"
        "&address=78 Leaf St.&city=Sydney",
    )
    found = cluster.request("GET", "/get_user?country=Australia&limit=1000").json()["items"]
    again = cluster.request("GET", "/insert_user?id=321&first_name=M&last_name=S&country=A"
                                   "&address=7&city=S")  # fmt: skip
    deleted = cluster.post("/delete_user", id="321")
    gone = cluster.get("/get_user", id=321).json()["items"]
    for user in before:
        cluster.post("/insert_user", **user)

    assert 200 == written.status_code
    assert "78 Leaf St." == written.json()["address"]
    assert "321" in {user["id"] for user in found}
    assert (409, "conflict") == refusal(again)[:2]
    assert deleted.json() is True
    assert [] == gone


def test_updates_change_only_what_was_sent(cluster: Cluster) -> None:
    """A partial update leaves every absent column as it was."""
    cluster.post("/insert_user", **ADA)
    changed = cluster.post("/update_user", id=ADA["id"], city="Malmö")
    found = cluster.get("/get_user", id=ADA["id"]).json()["items"]
    cluster.post("/delete_user", id=ADA["id"])

    assert 200 == changed.status_code, changed.text
    assert [{**ADA, "city": "Malmö"}] == found
