"""Requests for the endpoints of a catalog, as bytes: right ones, wrong ones and nonsense."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, quote_plus

from hypothesis import strategies as st

from modeldefs.kit.catalog import Catalog
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.parameters import ParameterSpec
from tests.property.two_paths import Keys

METHODS = ["GET", "HEAD", "POST", "QUERY", "PUT", "OPTIONS", "DELETE", "PATCH", "PROPFIND"]
NAMES = ["custmers", "nobody", "x", "Get_User", "a" * 100, "rename2"]
VALUES: dict[str, list[str]] = {
    "integer": ["0", "7", "-7", "13", "14", "9007199254740993", "-9223372036854775808"],
    "text": ["", "Sweden", "Ö'; --", "a b&c=d%", "😀", "\x7f", "x" * 300],
    "number": ["0.5", "-1", "1e3", "1e-320", "0.1"],
    "decimal": ["12.34", "-0.1", "0"],
    "boolean": ["true", "false"],
    "moment": ["2013-01-01T00:00:00Z", "2013-06-30T23:59:59.123456+02:00"],
    "date": ["2013-01-01", "0001-01-01"],
    "id": ["018f8a5e-7b1c-8000-8000-00805f9b34fb"],
}
JUNK_IN_URL = [
    *("%00", "a%00b", "%", "%z", "%zz", "%FF", "%ED%A0%80", "%C3%28", "%D9%A1", "%2500"),
    *("9" * 30, "9" * 3000, "1_000", "%201", "+1", "01", "-0", "1.0", "1e3", "NaN", "Infinity"),
    *("null", "yes", "True", "[]", "{}", "2013-02-30", "2013-01-01T00:00:00", "1700000000"),
    *("2147483648", "9223372036854775808", "1e999", "a=b", "a;b", "'", '"', "\\", "<b>", "|"),
    *("018F8A5E-7B1C-8000-8000-00805F9B34FB", "..", "%2e%2e%2f", "%0d%0aset-cookie:%20a=b"),
]
LIMITS = ["1", "13", "50", "1000", "1001", "0", "-1", "01", "x", "", "9" * 20, "%31"]
JSON_JUNK: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**53, 2**53 + 1, 2**64, "", "\x00", "😀", [], {}, [1]),
    *([[1]], {"a": 1}, float("nan"), float("inf"), "x" * 300, ["a"] * 1001, "1", "1.0", "true"),
]
RAW_BODIES = [
    *(b"", b" ", b"[]", b"null", b"1", b'"x"', b"{", b"{]", b"[" * 33, b"[" * 5000, b'{"a":' * 40),
    *(b"\xff", b'{"id":"\xff"}', b'{"id":1,"id":1}', b'{"name":"\\ud800"}', b'{"\\ud800":1}'),
    *(b'{"id":NaN}', b'{"id":1e400}', b'{"id":00}', b'{"limit":1,"limit":2}', b"\xef\xbb\xbf{}"),
    *(b"{}", b"{} ", b"{}x", b"{'id':1}", b'{"id":"1"}\n', b'{"a~/b":1}', b"\x00", b"id=1"),
]
CONTENT_TYPES = [
    *("application/json", "application/json", "application/json", "Application/JSON"),
    *("application/json; charset=utf-8", 'application/json;charset="UTF-8"', "text/plain"),
    *("application/json; charset=latin-1", "application/json;x=y", "application/jsonl", ""),
    *("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ";", "é"),
]
ACCEPTS = [
    *("*/*", "application/json", "text/html", "application/*;q=0.5", "application/json;q=0", ""),
    *("application/jsonl", "application/jsonl, */*;q=0.1", "Application/JSONL;q=1.000"),
    *("application/jsonl;q=0.5, application/json;q=0.4", "application/json, application/jsonl"),
    *("text/html, application/json", "text/html,*/*;q=0.0", "application/jsonl", ",", "*", "é"),
]
TIMEOUTS = ["1", "2000", "30000", "30001", "0", "-1", "x", "", "1.5", "٣", " 5 ", "9" * 30]
OTHERS = [
    ("Prefer", "partial"), ("Prefer", "return=minimal"),
    ("Prefer", "tx=rollback, handling=strict"),
    ("Prefer", 'handling=strict;x, partial=""'), ("Prefer", "tx=é"), ("Prefer", 'a="b, partial'),
    ("Api-Version", "1"), ("Cookie", "sessionid=x; csrftoken=y"),
    ("Origin", "https://evil.example"), ("If-None-Match", "*"), ("Range", "bytes=0-1"),
    ("X-Request-Id", "mine"), ("Idempotency-Key", "k"), ("Idempotency-Key", '"m n"'),
    ("Idempotency-Key", "l"), ("Accept-Encoding", "gzip, br"),
    ("Accept-Language", "sv"), ("X-HTTP-Method-Override", "DELETE"), ("User-Agent", "é"),
    ("If-Modified-Since", "Thu, 01 Jan 2026 00:00:00 GMT"), ("X-Requested-With", "x"),
    ("Sec-Fetch-Site", "cross-site"), ("Referer", "http://localhost/"),
]  # fmt: skip


def _values(spec: ParameterSpec) -> list[str]:
    found = [text for texts in VALUES.values() for text in texts if _fits(spec, text)]
    return found or ["x"]


def _fits(spec: ParameterSpec, text: str) -> bool:
    try:
        spec.text_of(text)
    except Exception:  # whatever it says about it
        return False
    return True


def _in_json(spec: ParameterSpec, text: str) -> Any:
    if spec.kind.in_json == "boolean":
        return text == "true"
    return json.loads(text) if spec.kind.in_json == "number" else text


@st.composite
def _urls(draw: st.DrawFn, specs: list[ParameterSpec], *, right: bool) -> str:
    pairs = []
    for spec in specs:
        if spec.required or draw(st.booleans()):
            encode = draw(st.sampled_from([quote, quote_plus]))
            pairs.append(f"{spec.name}={encode(draw(st.sampled_from(_values(spec))))}")
    if right:
        return "&".join(draw(st.permutations(pairs)))
    names = st.sampled_from([*(spec.name for spec in specs), "limit", "after", "cuontry", ""])
    texts = st.one_of(
        st.sampled_from(JUNK_IN_URL),
        st.text(max_size=8).map(lambda text: quote(text.encode("utf-8", "surrogatepass"))),
    )
    for _ in range(draw(st.integers(0, 3))):
        pairs.append(f"{draw(names)}={draw(texts)}")
    pairs += draw(
        st.lists(st.sampled_from(["", "=", "x", "limit", "%FF=1", "a%00=1"]), max_size=1)
    )
    if draw(st.booleans()):
        pairs.append(f"limit={draw(st.sampled_from(LIMITS))}")
    return "&".join(draw(st.permutations(pairs)))


@st.composite
def _bodies(draw: st.DrawFn, specs: list[ParameterSpec], *, right: bool) -> bytes:
    members: dict[str, Any] = {}
    for spec in specs:
        if spec.required or draw(st.booleans()):
            value = _in_json(spec, draw(st.sampled_from(_values(spec))))
            members[spec.name] = [value] if spec.is_list else value
    if right:
        return json.dumps(members).encode()
    if draw(st.integers(0, 3)) == 0:
        return draw(st.one_of(st.sampled_from(RAW_BODIES), st.binary(max_size=20)))
    names = st.sampled_from([*(spec.name for spec in specs), "limit", "after", "cuontry"])
    for _ in range(draw(st.integers(0, 2))):
        members[draw(names)] = draw(st.sampled_from(JSON_JUNK))
    return json.dumps(members, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def _batches(draw: st.DrawFn, specs: list[ParameterSpec], *, right: bool) -> bytes:
    texts = draw(st.lists(_bodies(specs, right=right), min_size=int(right), max_size=3))
    name = "items" if right else draw(st.sampled_from(["items", "items", "items", "item"]))
    return b'{"%b":[%b]}' % (name.encode(), b",".join(texts))


def _body_of(endpoint: Endpoint[Any, Any], *, right: bool) -> st.SearchStrategy[bytes]:
    specs = list(endpoint.parameters)
    one = _bodies(specs, right=right)
    if not endpoint.is_many:
        return one
    batches = _batches(specs, right=right)
    return batches if right else st.one_of(batches, batches, one)


@st.composite
def _headers(draw: st.DrawFn, keys: Keys, *, right: bool) -> list[tuple[str, str]]:
    bearer = f"Bearer {keys.all.text}"
    if right:
        return [("Authorization", bearer)]
    texts = keys.texts()
    held = st.sampled_from([*texts, texts[0], "", "x", texts[0][:-1], "é", "x" * 200])
    headers = draw(
        st.sampled_from(
            [
                [("Authorization", bearer)],
                [("authorization", f"bearer  {keys.all.text} ")],
                [("X-Api-Key", draw(held))],
                [("Authorization", f"Bearer {draw(held)}")],
                [("Authorization", draw(held)), ("X-Api-Key", draw(held))],
                [("X-Api-Key", draw(held)), ("Authorization", draw(held))],
                [("Authorization", bearer), ("Authorization", f"Bearer {draw(held)}")],
                [],
            ]
        )
    )
    few = [
        *(("Accept", text) for text in draw(st.lists(st.sampled_from(ACCEPTS), max_size=2))),
        *(("Shardpoint-Timeout-Ms", text)
          for text in draw(st.lists(st.sampled_from(TIMEOUTS), max_size=2))),
        *(("Content-Encoding", text)
          for text in draw(st.lists(st.sampled_from(["gzip", "identity", ""]), max_size=1))),
        *draw(st.lists(st.sampled_from(OTHERS), max_size=2)),
    ]  # fmt: skip
    return [*headers, *(few if draw(st.booleans()) else few[:1])]


def _framed(
    method: str, target: str, headers: list[tuple[str, str]], body: bytes | None, chunked: bool
) -> bytes:
    if body is None:
        framing, sent = b"", b""
    elif chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
        sent = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    else:
        framing, sent = b"Content-Length: %d\r\n" % len(body), body
    lines = b"".join(b"%b: %b\r\n" % (name.encode(), text.encode()) for name, text in headers)
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode()
    return head + lines + framing + b"\r\n" + sent


@st.composite
def right_requests(draw: st.DrawFn, catalog: Catalog, keys: Keys) -> bytes:
    """Return a request that keeps the contract."""
    endpoint = catalog.endpoints[draw(st.sampled_from(sorted(catalog.endpoints)))]
    specs = list(endpoint.parameters)
    method = draw(st.sampled_from(endpoint.methods))
    headers = draw(_headers(keys, right=True))
    target, body = f"/{endpoint.name}", None
    if method in ("POST", "QUERY"):
        headers.append(("Content-Type", "application/json"))
        body = draw(_body_of(endpoint, right=True))
    else:
        target += "?" + draw(_urls(specs, right=True))
    return _framed(method, target, headers, body, chunked=draw(st.booleans()))


@st.composite
def _odd_requests(draw: st.DrawFn, catalog: Catalog, keys: Keys) -> bytes:
    endpoint = catalog.endpoints[draw(st.sampled_from(sorted(catalog.endpoints)))]
    specs = list(endpoint.parameters)
    name = draw(st.sampled_from([endpoint.name] * 9 + NAMES))
    method = draw(st.sampled_from([*endpoint.methods, *METHODS]))
    url = draw(_urls(specs, right=False)) if method != "QUERY" or draw(st.booleans()) else ""
    body = draw(_body_of(endpoint, right=False)) if draw(st.booleans()) else None
    headers = draw(_headers(keys, right=False))
    if body is not None:
        count = draw(st.sampled_from([1, 1, 1, 1, 2, 0]))
        kinds = [draw(st.sampled_from(CONTENT_TYPES)) for _ in range(count)]
        headers += [("Content-Type", text) for text in kinds]
    target = f"/{name}?{url}" if url or draw(st.booleans()) else f"/{name}"
    return _framed(method, target, headers, body, chunked=draw(st.booleans()))


def requests(catalog: Catalog, keys: Keys) -> st.SearchStrategy[bytes]:
    """Return one request, right or odd."""
    return st.one_of(right_requests(catalog, keys), _odd_requests(catalog, keys))
