"""Every breach of the contract of a request is one entry of one refusal."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import pytest

from modeldefs import Groups, Page, aggregate, count, mutation, query
from modeldefs.kit.requests import ReadRequest, RequestReader
from modeldefs.wire.problems import InvalidRequest, UnsupportedMediaType
from tests.definitions_shop.shop import Customer
from tests.unit.kit.planning import breaches, read, resolved

DEEP = b'{"name":' + b"[" * 32 + b"]" * 32 + b"}"
WIDE = b'{"ids":[' + b",".join([b"1"] * 1001) + b"]}"
MANY = b"{" + b",".join(b'"x%d":1' % n for n in range(2001)) + b"}"


@resolved
@query(order="id", limit=20, limit_max=100)
def find(
    *,
    id: int | None = None,
    age: int | None = None,
    name: str | None = None,
    active: bool | None = None,
    score: float | None = None,
    balance: Decimal | None = None,
    kind: Literal["new", "old"] = "new",
    ids: list[int] | None = None,
) -> Page[Customer]:
    """Find customers."""
    return Customer.objects.given(id=id, age=age, name=name)


@resolved
@query
def by_id(*, id: int) -> Customer | None:
    """One customer."""
    return Customer.objects.filter(id=id).one()


@resolved
@aggregate(order="-people", top=5)
def top(*, age: int | None = None) -> Groups[str, int]:
    """The largest groups."""
    return Customer.objects.given(age=age).values("name").annotate(people=count())  # type: ignore[no-any-return]


@resolved
@mutation(on=Customer)
def rename(*, id: int, name: str, nick: str | None = None, age: int | None = None) -> bool:
    """Rename a customer."""
    return Customer.objects.filter(id=id).update(name=name, nick=nick) > 0


def asked(*, url: bytes = b"", body: bytes = b"") -> ReadRequest:
    """Return what a request for `find` asks for."""
    reader = RequestReader(find)
    return reader.read(query=url, body=body, content_type=b"application/json", has_body=bool(body))


@pytest.mark.parametrize(
    "url, body, values",
    [
        (b"", b"{}", {}),
        (b"id=5", b'{"id":5}', {"id": "5"}),
        (b"id=5", b'{"id":"5"}', {"id": "5"}),
        (b"name=", b'{"name":""}', {"name": ""}),
        (b"name=a+b%20c%2Bd", b'{"name":"a b c+d"}', {"name": "a b c+d"}),
        (b"name=%F0%9F%98%80", b'{"name":"\\ud83d\\ude00"}', {"name": "😀"}),
        (b"%6eame=x&&", b'{"name":"x"}', {"name": "x"}),
        (b"active=false", b'{"active":false}', {"active": "false"}),
        (b"score=1", b'{"score":1}', {"score": "1.0"}),
        (b"balance=1.50", b'{"balance":"1.5"}', {"balance": "1.5"}),
        (b"ids=2&ids=1&ids=2", b'{"ids":[2,1,"2"]}', {"ids": ["2", "1", "2"]}),
        (b"kind=old", b'{"kind":"old"}', {"kind": "old"}),
    ],
)
def test_url_and_body_agree(url: bytes, body: bytes, values: dict[str, object]) -> None:
    """A value sent in the URL and the same value in a body are the same value."""
    expected = {"kind": "new", **values}

    assert expected == read(find, url=url)
    assert expected == read(find, body=body)


@pytest.mark.parametrize(
    "url, code, parameter",
    [
        (b"cuontry=Sweden", "unknown-parameter", "cuontry"),
        (b"=1", "unknown-parameter", ""),
        (b"id=1&id=1", "duplicate", "id"),
        (b"id=x&id=1", "duplicate", "id"),
        (b"id=", "wrong-type", "id"),
        (b"id", "wrong-type", "id"),
        (b"id=01", "wrong-type", "id"),
        (b"id=9223372036854775808", "out-of-range", "id"),
        (b"age=2147483648", "out-of-range", "age"),
        (b"active=yes", "wrong-type", "active"),
        (b"score=NaN", "not-finite", "score"),
        (b"balance=Infinity", "not-finite", "balance"),
        (b"name=%00", "nul-character", "name"),
        (b"name=%FF", "bad-utf8", "name"),
        (b"name=%ED%A0%80", "bad-utf8", "name"),
        (b"name=\xff", "bad-utf8", "name"),
        (b"name=" + b"x" * 1_000_001, "too-long", "name"),
        (b"ids=" + b"&ids=".join([b"1"] * 1001), "too-long", "ids"),
        (b"x=1&" * 2001, "out-of-range", None),
        (b"kind=odd", "wrong-type", "kind"),
        (b"limit=101", "limit-too-large", "limit"),
        (b"limit=" + b"9" * 50, "limit-too-large", "limit"),
        (b"limit=0", "out-of-range", "limit"),
        (b"limit=-1", "wrong-type", "limit"),
        (b"limit=", "wrong-type", "limit"),
        (b"limit=07", "wrong-type", "limit"),
        (b"limit=5&limit=5", "duplicate", "limit"),
        (b"after=" + b"x" * 2001, "too-long", "after"),
    ],
)
def test_breaches_in_a_url(url: bytes, code: str, parameter: str | None) -> None:
    """Each breach in a URL has its code and names its parameter."""
    found = breaches(find, url=url)

    assert (code, parameter, None) in found


@pytest.mark.parametrize(
    "body, code, parameter, pointer",
    [
        (b'{"cuontry":"Sweden"}', "unknown-parameter", "cuontry", "/cuontry"),
        (b'{"a/b~c":1}', "unknown-parameter", "a/b~c", "/a~1b~0c"),
        (b'{"id":1,"id":1}', "duplicate", "id", "/id"),
        (b'{"limit":1,"limit":1}', "duplicate", "limit", "/limit"),
        (b'{"id":null}', "wrong-type", "id", "/id"),
        (b'{"id":true}', "wrong-type", "id", "/id"),
        (b'{"id":1.0}', "wrong-type", "id", "/id"),
        (b'{"id":9007199254740993}', "out-of-range", "id", "/id"),
        (b'{"age":"5"}', "wrong-type", "age", "/age"),
        (b'{"name":5}', "wrong-type", "name", "/name"),
        (b'{"name":["x"]}', "wrong-type", "name", "/name"),
        (b'{"name":{"a":1,"a":2}}', "wrong-type", "name", "/name"),
        (b'{"name":"\\u0000"}', "nul-character", "name", "/name"),
        (b'{"name":"\\ud800"}', "invalid-unicode", "name", "/name"),
        (b'{"score":1e999}', "not-finite", "score", "/score"),
        (b'{"score":NaN}', "not-finite", None, ""),
        (b'{"score":-Infinity}', "not-finite", None, ""),
        (b'{"ids":5}', "wrong-type", "ids", "/ids"),
        (b'{"ids":[1,"x"]}', "wrong-type", "ids", "/ids/1"),
        (b'{"ids":[null]}', "wrong-type", "ids", "/ids/0"),
        (WIDE, "too-long", "ids", None),
        (MANY, "out-of-range", None, ""),
        (b'{"limit":"5"}', "wrong-type", "limit", None),
        (b'{"limit":101}', "limit-too-large", "limit", None),
        (b'{"limit":5.0}', "wrong-type", "limit", None),
        (b'{"limit":null}', "wrong-type", "limit", None),
        (b'{"after":5}', "wrong-type", "after", None),
        (b'{"\\ud800":5}', "invalid-unicode", None, "/?"),
        (b'{"\\ud800":5,"\\ud800":5}', "duplicate", "?", "/?"),
        (b'{"name":"\xff"}', "bad-utf8", None, ""),
        (b"\xef\xbb\xbf{}", "malformed-body", None, ""),
        (b"[]", "malformed-body", None, ""),
        (b"5", "malformed-body", None, ""),
        (b'{"name":', "malformed-body", None, ""),
        (b"{'name':1}", "malformed-body", None, ""),
        (b"{} {}", "malformed-body", None, ""),
        (DEEP, "too-deep", None, ""),
        (b"[" * 500_000, "too-deep", None, ""),
        (b'{"ids":[' + b"{}," * 300_000 + b"{}]}", "too-long", None, ""),
    ],
)
def test_breaches_in_a_body(
    body: bytes, code: str, parameter: str | None, pointer: str | None
) -> None:
    """Each breach in a body has its code and points to its place."""
    found = breaches(find, body=body)

    assert [(code, parameter, pointer)] == found


def test_brackets_in_texts_are_not_depth() -> None:
    """A text may hold as many brackets as it likes."""
    text = "[{" * 40 + '"'

    assert text == read(find, body=b'{"name":"' + b"[{" * 40 + b'\\""}')["name"]


def test_missing_is_told_once() -> None:
    """A required parameter that is absent is missing; one that is wrong is wrong only."""
    assert [("missing", "id", None)] == breaches(by_id)
    assert [("missing", "id", None)] == breaches(by_id, body=b"{}")
    assert [("wrong-type", "id", None)] == breaches(by_id, url=b"id=x")
    assert [("wrong-type", "id", "/id")] == breaches(by_id, body=b'{"id":null}')
    assert [("duplicate", "id", "/id")] == breaches(by_id, body=b'{"id":1,"id":2}')


def test_all_breaches_are_told_at_once() -> None:
    """A caller learns of every mistake in one answer."""
    found = breaches(find, url=b"id=x&nam=1&limit=0")

    assert [
        ("wrong-type", "id", None),
        ("unknown-parameter", "nam", None),
        ("out-of-range", "limit", None),
    ] == found


def test_url_and_body_do_not_override_each_other() -> None:
    """The same parameter in URL and body is a duplicate."""
    assert [("duplicate", "id", "/id")] == breaches(find, url=b"id=1", body=b'{"id":1}')


def test_unknown_name_suggests_a_known_one() -> None:
    """A misspelt filter is refused, and the answer says what was probably meant."""
    with pytest.raises(InvalidRequest) as refused:
        read(find, url=b"actve=true")

    assert "actve is not a parameter of this endpoint: did you mean 'active'?" == str(
        refused.value
    )


def test_a_long_name_is_not_echoed_whole() -> None:
    """A refusal is never much larger than what it says."""
    ((_, parameter, pointer),) = breaches(find, body=b'{"' + b"x" * 100_000 + b'":1}')

    assert ("x" * 200, "/" + "x" * 199) == (parameter, pointer)


def test_page_of_a_request() -> None:
    """`limit` and `after` say which page; without them it is the first, of the declared size."""
    plain, page = asked(), asked(url=b"limit=100&after=abc")

    assert (20, None) == (plain.limit, plain.after)
    assert (100, "abc") == (page.limit, page.after)
    assert (7, "abc") == (
        asked(body=b'{"limit":7,"after":"abc"}').limit,
        asked(body=b'{"after":"abc"}').after,
    )


def test_limit_and_after_only_where_they_mean_something() -> None:
    """An endpoint without pages knows no `after`, one without a top no `limit`."""
    assert [("unknown-parameter", "limit", None)] == breaches(by_id, url=b"id=1&limit=1")
    assert [("unknown-parameter", "after", None)] == breaches(top, url=b"after=x")
    assert [] == breaches(top, url=b"limit=1000")
    assert [("limit-too-large", "limit", None)] == breaches(top, url=b"limit=1001")


def test_null_is_for_nullable_columns_of_writes() -> None:
    """A write may set a nullable column to null; for others null is refused."""
    assert {"id": "1", "name": "x", "nick": None} == read(
        rename, body=b'{"id":1,"name":"x","nick":null}'
    )
    assert [("wrong-type", "age", "/age")] == breaches(
        rename, body=b'{"id":1,"name":"x","age":null}'
    )


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"],
)
def test_other_media_types_are_refused(kind: str) -> None:
    """A body that is not JSON in UTF-8 is refused before it is read."""
    with pytest.raises(UnsupportedMediaType):
        read(find, body=b"{}", kind=kind)


@pytest.mark.parametrize("kind", ["Application/JSON", 'application/json; charset="UTF-8"'])
def test_media_type_is_read_as_http_says(kind: str) -> None:
    """Case does not matter, and UTF-8 may be named."""
    assert {"kind": "new"} == read(find, body=b"{}", kind=kind)


def test_empty_list_is_a_list() -> None:
    """An empty array is a list of no values, not an absent parameter."""
    assert [] == read(find, body=b'{"ids":[]}')["ids"]
