"""The short way reads a request as the long way does, or leaves it to it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

from hypothesis import given
from hypothesis import strategies as st

from modeldefs.kit.catalog import load_catalog
from modeldefs.kit.many import ManyEndpoint
from modeldefs.kit.many_requests import ManyReader, QuickMany
from modeldefs.kit.quick_requests import QuickRequest, QuickRequests
from modeldefs.kit.requests import ReadRequest, RequestReader
from modeldefs.wire.problems import Problem

READERS = [
    RequestReader(endpoint)
    for package in ("tests.definitions_shop", "modeldefs.definitions")
    for endpoint in load_catalog([package]).endpoints.values()
]
VALUES = st.one_of(
    st.integers(-5, 5).map(str),
    st.sampled_from(
        [
            "true",
            "false",
            "1.50",
            "2026-11-23",
            "2026-11-23T02:36:23Z",
            "new",
            "9" * 25,
            "-0",
            "01",
        ]
    ),
    st.text(max_size=4),
)
LEAVES = st.one_of(
    VALUES,
    st.none(),
    st.booleans(),
    st.integers(-3, 2**60),
    st.floats(),
    st.just([1]),
    st.just({}),
)
JUNK = st.sampled_from([b"", b"&", b"=", b"%", b"%zz", b"%00", b"+", b"#", b"\\u0000", b"{", b"["])


def _slow(reader: RequestReader, **sent: Any) -> ReadRequest | None:
    try:
        return reader.read(content_type=b"application/json", **sent)
    except Problem:
        return None


def _agrees(reader: RequestReader, quick: QuickRequest | None, slow: ReadRequest | None) -> None:
    if quick is None:
        return
    assert slow is not None
    assert slow.values == quick.values
    assert (slow.limit, slow.after) == (quick.limit, None)
    names = [spec.name for spec in reader.endpoint.parameters]
    assert sum(1 << names.index(name) for name in slow.values) == quick.mask


def _names(reader: RequestReader) -> st.SearchStrategy[str]:
    return st.sampled_from([*reader.specs, "limit", "after", "nothing"])


@given(st.data(), st.sampled_from(READERS), JUNK, st.integers(0, 300))
def test_urls(data: st.DataObject, reader: RequestReader, junk: bytes, place: int) -> None:
    """Whatever the query, right or not: the same parameters, or left to the long way."""
    pairs = data.draw(st.lists(st.tuples(_names(reader), VALUES), max_size=8))
    query = "&".join(f"{name}={quote_plus(value)}" for name, value in pairs).encode()
    query = query[:place] + junk + query[place:]

    quick = QuickRequests(reader).read_url(query)
    _agrees(reader, quick, _slow(reader, query=query, body=b"", has_body=False))


@given(st.data(), st.sampled_from(READERS), JUNK, st.integers(0, 300), st.booleans())
def test_bodies(
    data: st.DataObject, reader: RequestReader, junk: bytes, place: int, doubled: bool
) -> None:
    """Whatever the body, right or not: the same parameters, or left to the long way."""
    members = data.draw(st.dictionaries(_names(reader), LEAVES, max_size=8))
    body = json.dumps(members, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "ignore")
    if doubled and len(body) > 2:
        body = body[:-1] + b"," + body[1:]
    body = body[:place] + junk + body[place:]

    quick = QuickRequests(reader).read_body(body)
    _agrees(reader, quick, _slow(reader, query=b"", body=body, has_body=True))


def test_right_requests_take_the_short_way() -> None:
    """The comparison above is not of nothing: plain requests are read by the short way."""
    by_name = {reader.endpoint.name: QuickRequests(reader) for reader in READERS}

    assert by_name["get_user"].read_url(b"id=7&country=United+States&limit=3") == (
        QuickRequest({"id": "7", "country": "United States"}, 3, 3)
    )
    body = b'{"id":"7","name":"\xc3\xa4\\u00e4","nick":"x"}'
    assert by_name["rename"].read_body(body) == QuickRequest(
        {"id": "7", "name": "\u00e4\u00e4", "nick": "x"}, 7, by_name["rename"]._limit
    )


def test_a_member_that_comes_twice_is_seen() -> None:
    """Decoders keep the last of two; the short way leaves such a body alone, however it is put."""
    reader = next(each for each in READERS if each.endpoint.name == "rename")
    quick = QuickRequests(reader)

    assert quick.read_body(b'{"id":"7","name":"a"}') is not None
    for twice in (b'"name":"b"', b'"name":1', b'"id":"7"', b'"i\\u0064":"7"'):
        assert quick.read_body(b'{"id":"7","name":"a",' + twice + b"}") is None


def test_a_number_of_thousands_of_digits_is_left_alone() -> None:
    """Python refuses to read or to write one; no refusal of the interpreter's gets out."""
    for reader in READERS:
        for name in reader.specs:
            body = b'{"%b":-%b}' % (name.encode(), b"9" * 5_000)
            assert QuickRequests(reader).read_body(body) is None


MANY = [
    ManyReader(endpoint)
    for package in ("tests.definitions_shop", "modeldefs.definitions")
    for endpoint in load_catalog([package]).endpoints.values()
    if isinstance(endpoint, ManyEndpoint)
]


@given(st.data(), st.sampled_from(MANY), JUNK, st.integers(0, 300), st.booleans())
def test_batches(
    data: st.DataObject, reader: ManyReader, junk: bytes, place: int, doubled: bool
) -> None:
    """Whatever the batch, right or not: the same columns, or left to the long way."""
    specs = reader.endpoint.parameters
    names = st.sampled_from([*(spec.name for spec in specs), "nothing"])
    right = {
        spec.name: "7" if spec.kind.in_json in ("text", "either") else 7
        for spec in specs
        if spec.required
    }
    items = data.draw(st.lists(st.dictionaries(names, LEAVES, max_size=3), max_size=3))
    members = [{**right, **item} if data.draw(st.booleans()) else item for item in items]
    body = json.dumps({"items": members}, ensure_ascii=data.draw(st.booleans()))
    if doubled:
        body = body.replace("}", ',"id":"7"}', 1)
    sent = body.encode("utf-8", "ignore")
    sent = sent[:place] + junk + sent[place:]

    quick = QuickMany(reader.endpoint).read_body(sent)
    try:
        slow = reader.read(query=b"", body=sent, content_type=b"application/json", has_body=True)
    except Problem:
        slow = None
    if quick is not None:
        assert slow is not None
        assert slow.values == quick.values


def test_plain_batches_take_the_short_way() -> None:
    """And a member that comes twice in one of them is seen."""
    reader = next(each for each in MANY if each.endpoint.name == "insert_users")
    item = b'"id":"7","first_name":"a","last_name":"b","country":"c","address":"d","city":"e"'
    quick = QuickMany(reader.endpoint)

    found = quick.read_body(b'{"items":[{%b},{%b}]}' % (item, item))
    assert found is not None
    assert found.values["id"] == ["7", "7"]
    assert quick.read_body(b'{"items":[{%b},{%b,"id":"8"}]}' % (item, item)) is None
    assert quick.read_body(b'{"items":[{%b}],"items":[{%b}]}' % (item, item)) is None
