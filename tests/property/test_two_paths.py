"""The fast path and the ninja path answer the same, byte for byte, whatever is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.catalog import Catalog
from tests.property import shop_urls
from tests.property.http_requests import (
    JUNK_IN_URL,
    METHODS,
    RAW_BODIES,
    requests,
    right_requests,
)
from tests.property.two_paths import TwoPaths, two_paths


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Return the shop's definitions."""
    return shop_urls.CATALOG


@pytest.fixture(scope="module")
def paths(catalog: Catalog) -> Iterator[TwoPaths]:
    """Serve the shop on both paths."""
    with two_paths(catalog, urls="tests.property.shop_urls") as opened:
        yield opened


@pytest.fixture(scope="module")
def examples() -> Iterator[TwoPaths]:
    """Serve the shipped examples on both paths, by the URLs that the dispatcher has."""
    with two_paths(current_catalog(), urls="dispatcher_site.urls") as opened:
        yield opened


@settings(max_examples=250)
@given(data=st.data())
def test_both_paths_answer_the_same(
    paths: TwoPaths, catalog: Catalog, data: st.DataObject
) -> None:
    """Status, headers and body are equal, and the backend was asked the same or not at all."""
    fast, slow = paths.ask(data.draw(requests(catalog, paths.keys)))

    assert fast == slow


@settings(max_examples=100)
@given(data=st.data())
def test_the_examples_answer_the_same_where_the_dispatcher_serves_them(
    examples: TwoPaths, data: st.DataObject
) -> None:
    """The dispatcher's own URLs and middleware add nothing to a data endpoint's answer."""
    fast, slow = examples.ask(data.draw(requests(current_catalog(), examples.keys)))

    assert fast == slow


@settings(max_examples=50)
@given(data=st.data())
def test_right_requests_reach_the_backend_by_both(
    paths: TwoPaths, catalog: Catalog, data: st.DataObject
) -> None:
    """What keeps the contract is asked of the backend: the sameness is not that of refusals."""
    fast, slow = paths.ask(data.draw(right_requests(catalog, paths.keys)))

    assert fast == slow
    assert 1 == len(paths.backend.asks)


@settings(max_examples=50)
@given(data=st.data())
def test_right_requests_for_the_examples_reach_the_backend_by_both(
    examples: TwoPaths, data: st.DataObject
) -> None:
    """So do those for the shipped definitions, whose batches are read by a way of their own."""
    fast, slow = examples.ask(data.draw(right_requests(current_catalog(), examples.keys)))

    assert fast == slow
    assert 1 == len(examples.backend.asks)


def test_batches_are_the_same_by_both(examples: TwoPaths) -> None:
    """Right ones, ones with a flaw in one item, and none at all."""
    person = dict.fromkeys(current_catalog().endpoints["insert_users"].by_name, "7")
    batches: list[list[Any]] = [
        [person],
        [person] * 1_000,
        [person] * 1_001,
        [],
        [person, {**person, "id": "x"}],
        [person, {**person, "fax": "1"}, {"id": "7"}, 7, None],
        [{}] * 300,
    ]
    bodies = [json.dumps({"items": members}).encode() for members in batches]
    statuses = []
    for body in (*bodies, b"{}", b'{"items":[[[[{}]]]]}', b"[" * 200):
        request = _plain("POST", "/insert_users", examples.keys.all.text, body)
        fast, slow = examples.ask(request)
        assert fast == slow
        statuses.append(fast[0].split()[1])

    assert statuses == [b"200"] * 2 + [b"400"] * 8


def _plain(
    method: str, target: str, key: str = "", body: bytes | None = None, *more: str
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", *more]
    lines += [f"Authorization: Bearer {key}"] if key else []
    if body is not None:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def test_every_method_of_every_endpoint(paths: TwoPaths, catalog: Catalog) -> None:
    """Allowed or not, with and without a key, with and without a body: the same answer."""
    for name in [*catalog.endpoints, "nobody"]:
        for method in METHODS:
            for key in ("", paths.keys.all.text, paths.keys.reader.text):
                for body in (None, b"{}"):
                    fast, slow = paths.ask(_plain(method, f"/{name}", key, body))

                    assert fast == slow


@pytest.mark.parametrize(
    "header",
    ["Shardpoint-Timeout-Ms: x", "Prefer: " + "a;;" * 5_000, "Accept: " + "a;;," * 5_000],
)
def test_who_has_no_key_has_no_header_read(paths: TwoPaths, header: str) -> None:
    """One body for every cause, before anything that costs time or tells anything."""
    fast, slow = paths.ask(_plain("GET", "/customers", "", None, header))
    keyed, _ = paths.ask(_plain("GET", "/customers", paths.keys.all.text, None, header))

    assert fast == slow
    assert b"HTTP/1.1 401 Unauthorized" == fast[0].strip()
    assert b"HTTP/1.1 400 Bad Request" == keyed[0].strip()


@pytest.mark.parametrize("text", JUNK_IN_URL)
def test_junk_in_the_url(paths: TwoPaths, catalog: Catalog, text: str) -> None:
    """Each junk as name and as value: refused or taken by both alike."""
    for endpoint in catalog.endpoints.values():
        names = [spec.name for spec in endpoint.parameters[:2]] or ["limit"]
        for query in (f"{names[0]}={text}", f"{names[-1]}=1&{text}=1&after={text}"):
            request = _plain("GET", f"/{endpoint.name}?{query}", paths.keys.all.text)
            fast, slow = paths.ask(request)

            assert fast == slow


@pytest.mark.parametrize("body", RAW_BODIES)
def test_junk_in_the_body(paths: TwoPaths, catalog: Catalog, body: bytes) -> None:
    """Each junk as a body, by POST and QUERY: refused or taken by both alike."""
    for endpoint in catalog.endpoints.values():
        for method in ("POST", "QUERY"):
            fast, slow = paths.ask(_plain(method, f"/{endpoint.name}", paths.keys.all.text, body))

            assert fast == slow


def test_who_has_no_key_learns_no_name_by_either(paths: TwoPaths, catalog: Catalog) -> None:
    """Without a key an endpoint, a name like it and nobody's name are one and the same 401."""
    known = next(iter(catalog.endpoints))
    told = set()
    for name in (known, known[:-1], "nobody"):
        fast, slow = paths.ask(_plain("GET", f"/{name}"))
        assert fast == slow
        document = json.loads(fast[2])
        assert f"/{name}" == document.pop("instance")
        told.add((fast[0], json.dumps(document)))

    assert 1 == len(told)
    assert b"HTTP/1.1 401 Unauthorized" == next(iter(told))[0]


def test_cursors_are_each_others(paths: TwoPaths, catalog: Catalog) -> None:
    """A cursor that one path gave goes on by both; with any byte altered both refuse it alike."""
    endpoint = next(e for e in catalog.endpoints.values() if e.shape == "page")
    key = paths.keys.all.text
    target = f"/{endpoint.name}?limit=2"
    for request in (_plain("GET", target, key), _plain("POST", f"/{endpoint.name}", key, b"{}")):
        first = paths.ask(request)[0]
        cursor = json.loads(first[2])["next"]
        fast, slow = paths.ask(_plain("GET", f"{target}&after={cursor}", key))
        assert fast == slow
        assert b"HTTP/1.1 200 OK" == fast[0]
        for place in range(0, len(cursor), 7):
            other = "B" if cursor[place] == "A" else "A"
            bent = cursor[:place] + other + cursor[place + 1 :]
            fast, slow = paths.ask(_plain("GET", f"{target}&after={bent}", key))
            assert fast == slow
            assert b"HTTP/1.1 400 Bad Request" == fast[0]


def test_preferences_and_partial_pages_are_the_same_by_both(
    paths: TwoPaths, catalog: Catalog
) -> None:
    """A partial page, the next one by its cursor, a bent one of it, an export behind it, a write
    without a body, a dry run and what is refused: the same bytes by both."""
    page = next(e.name for e in catalog.endpoints.values() if e.shape == "page")
    write = next(e for e in catalog.endpoints.values() if e.kind == "mutation")
    given = {spec.name: "1" for spec in write.parameters if spec.required}
    body, key = json.dumps(given).encode(), paths.keys.all.text
    partial = "Prefer: partial"
    first, slow = paths.ask(_plain("GET", f"/{page}?limit=2", key, None, partial))
    assert first == slow
    cursor = json.loads(first[2])["next"]
    behind = f"/{page}?limit=2&after={cursor}"
    asked = {
        b"200": [_plain("GET", behind, key, None, partial), _plain("GET", behind, key)],
        b"400": [
            _plain("GET", behind[:-1] + ("A" if cursor[-1] != "A" else "Q"), key),
            _plain("GET", behind, key, None, "Accept: application/jsonl"),
            _plain("GET", f"/{page}", key, None, partial, "Prefer: handling=strict, x"),
            _plain("POST", f"/{write.name}", key, body, "Prefer: tx=maybe"),
        ],
        b"204": [_plain("POST", f"/{write.name}", key, body, "Prefer: return=minimal")],
    }

    assert (b"cache-control", b"no-store") in first[1]
    assert (b"preference-applied", b"partial") in first[1]
    for status, requests_of_status in asked.items():
        for request in requests_of_status:
            fast, slow = paths.ask(request)
            assert fast == slow
            assert status == fast[0].split()[1], (request, fast)


def test_headers_of_pages_are_not_on_data(paths: TwoPaths, catalog: Catalog) -> None:
    """A foreign session's and CSRF token's cookies change nothing and are not answered."""
    name = next(iter(catalog.endpoints))
    cookies = "Cookie: csrftoken=short; sessionid=x"
    fast, slow = paths.ask(_plain("OPTIONS", f"/{name}", paths.keys.all.text, None, cookies))

    assert fast == slow
    assert [b"allow"] == [header for header, _ in slow[1]]


def _lines(catalog: Catalog, paths: TwoPaths, query: str, *more: str) -> tuple[Any, Any]:
    endpoint = next(e for e in catalog.endpoints.values() if e.shape == "page")
    accept = "Accept: application/jsonl"
    request = _plain("GET", f"/{endpoint.name}{query}", paths.keys.all.text, None, accept, *more)
    return paths.ask(request)


def test_exports_are_the_same_whole_broken_or_refused(paths: TwoPaths, catalog: Catalog) -> None:
    """Lines, the last line of an export that broke off, a refusal before the first row: the same
    bytes by both, and the last chunk by both where the export is whole, and only there."""
    whole = _lines(catalog, paths, "")
    broken = _lines(catalog, paths, "?limit=13")
    refused = _lines(catalog, paths, "?id=13")

    for fast, slow in (whole, broken, refused):
        assert fast == slow
    assert (b"content-type", b"application/jsonl") in whole[0][1]
    assert whole[0][2].endswith(b"\n<whole>")
    assert 12 * 3 == whole[0][2].count(b"\n")
    assert broken[0][2].endswith(b"\n<broken off>")
    last = json.loads(broken[0][2].removesuffix(b"\n<broken off>").split(b"\n")[-1])
    assert ["$problem"] == list(last)
    assert "shard-unavailable" == last["$problem"]["code"]
    assert last["$problem"]["next"]
    assert b"HTTP/1.1 503 Service Unavailable" == refused[0][0]


def test_exports_by_head_and_by_an_old_client(paths: TwoPaths, catalog: Catalog) -> None:
    """HEAD has the head of GET and no body; HTTP/1.0, which has no chunks, is refused by both."""
    name = next(e.name for e in catalog.endpoints.values() if e.shape == "page")
    accept = "Accept: application/jsonl"
    head = paths.ask(_plain("HEAD", f"/{name}", paths.keys.all.text, None, accept))
    old = _plain("GET", f"/{name}", paths.keys.all.text, None, accept)
    fast, slow = paths.ask(old.replace(b"HTTP/1.1", b"HTTP/1.0"))

    assert head[0] == head[1]
    assert (b"content-type", b"application/jsonl") in head[0][1]
    assert b"" == head[0][2]
    assert fast == slow
    assert b"HTTP/1.1 406 Not Acceptable" == fast[0]


def test_limited_keys_are_told_what_is_left_by_both(paths: TwoPaths, catalog: Catalog) -> None:
    """Answers, refusals and exports of a limited key say its policy and what is left, a scatter
    costs a unit per shard, and a key that is used up gets the same 429, which asks no shard."""
    page = next(e.name for e in catalog.endpoints.values() if e.shape == "page")
    limited, spent = paths.keys.limited.text, paths.keys.spent.text
    accept = "Accept: application/jsonl"
    wide = paths.ask(_plain("GET", f"/{page}", limited))
    lines = paths.ask(_plain("GET", f"/{page}", limited, None, accept))
    wrong = paths.ask(_plain("GET", f"/{page}?nonsense=1", limited))
    nobody = paths.ask(_plain("GET", "/nobody", limited))
    over = paths.ask(_plain("GET", f"/{page}", spent))
    asked = list(paths.backend.asks)
    free = paths.ask(_plain("GET", f"/{page}", paths.keys.all.text))

    for fast, slow in (wide, lines, wrong, nobody, over, free):
        assert fast == slow
    assert [b"200", b"200", b"400", b"404", b"429"] == [
        fast[0].split()[1] for fast, _ in (wide, lines, wrong, nobody, over)
    ]
    assert [7, 7, 9, 9] == [_units_left(fast) for fast, _ in (wide, lines, wrong, nobody)]
    policy = b'"key";q=100;w=60, "concurrent";q=3;qu="concurrent-requests"'
    for fast, _ in (wide, lines, wrong, nobody):
        assert policy == dict(fast[1])[b"ratelimit-policy"]
    assert [] == asked
    assert b"60" == dict(over[0][1])[b"retry-after"]
    document = json.loads(over[0][2])
    assert "quota-exceeded" == document["code"]
    assert ["key"] == document["violated-policies"]
    assert b"ratelimit" not in dict(free[0][1])


def _units_left(answer: Any) -> int:
    found = re.search(rb'"key";r=([0-9]+);t=[0-9]+', dict(answer[1])[b"ratelimit"])
    assert found is not None
    return int(found[1])
