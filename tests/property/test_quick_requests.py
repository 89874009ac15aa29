"""The short way reads a request as the long way does, or leaves it to it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

from hypothesis import given
from hypothesis import strategies as st

from modeldefs.kit.catalog import load_catalog
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
        {"id": "7", "country": "United States"}, 3, 3
    )  # fmt: skip
    body = b'{"id":"7","name":"\xc3\xa4\\u00e4","nick":"x"}'
    assert by_name["rename"].read_body(body) == (
        {"id": "7", "name": "\u00e4\u00e4", "nick": "x"}, 7, by_name["rename"]._limit
    )  # fmt: skip


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
