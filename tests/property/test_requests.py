"""Whatever is sent: the same value by URL and by body, or one refusal, and nothing else."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

from hypothesis import example, given, settings
from hypothesis import strategies as st

from modeldefs.kit.parameters import KINDS
from modeldefs.kit.requests import RequestReader
from modeldefs.wire.problems import Problem, problem_body
from tests.unit.kit.planning import breaches, read
from tests.unit.kit.test_requests import find, rename

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), TEXTS
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=8
)
NAMES = st.one_of(st.sampled_from([*find.by_name, "limit", "after"]), st.text(max_size=5))
JUNK = st.one_of(
    st.binary(max_size=60),
    st.text(st.sampled_from('{}[]",:0123456789.eE-+ntfalsruN\\ud8'), max_size=60).map(str.encode),
    st.dictionaries(NAMES, JSON).map(lambda found: json.dumps(found).encode()),
)
SENDABLE = {
    int: st.integers(-(2**63), 2**63 - 1).map(str),
    str: TEXTS,
    float: st.floats(allow_nan=False, allow_infinity=False).map(repr),
}


@settings(deadline=None)
@given(TEXTS)
def test_any_text_round_trips(text: str) -> None:
    """A text arrives as it was sent, however it is encoded."""
    expected = {"kind": "new", "name": text}

    assert expected == read(find, url=b"name=" + quote(text, safe="").encode())
    assert expected == read(find, url=b"name=" + quote_plus(text).encode())
    assert expected == read(find, body=json.dumps({"name": text}).encode())
    assert expected == read(find, body=json.dumps({"name": text}, ensure_ascii=False).encode())


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
def test_any_integer_agrees(number: int) -> None:
    """An integer in a URL and as text in a body is the same value."""
    assert read(find, url=b"id=%d" % number) == read(find, body=b'{"id":"%d"}' % number)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_agrees(number: float) -> None:
    """A finite float in a URL and in a body is the same value, and no digit is lost."""
    found = read(find, url=b"score=" + quote(repr(number), safe="").encode())

    assert found == read(find, body=b'{"score":' + repr(number).encode() + b"}")
    assert number == float(found["score"])


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.text(max_size=5).map(str.strip)))
def test_url_and_body_agree_on_texts(sent: dict[str, str]) -> None:
    """For text parameters, URL and body breach the contract alike."""
    texts = {name: value for name, value in sent.items() if name in ("name", "kind", "xyz")}
    url = "&".join(f"{name}={quote(value, safe='')}" for name, value in texts.items())
    in_url = {code for code, _, _ in breaches(find, url=url.encode())}
    in_body = {code for code, _, _ in breaches(find, body=json.dumps(texts).encode())}

    assert in_url == in_body


@settings(deadline=None)
@given(JUNK, JUNK, st.sampled_from([b"application/json", b"text/plain", b"", b";\xff"]))
@example(b"", b'{"\\ud800":1}', b"application/json")
@example(b"", b'{"name":"\\ud800"}', b"application/json")
@example(b"%", b"", b"")
@example(b"a=%zz&=&==&;", b"", b"")
def test_junk_is_refused_whole(query: bytes, body: bytes, kind: bytes) -> None:
    """Junk is read or refused by a problem that can be written as JSON; nothing else is raised."""
    for endpoint in (find, rename):
        reader = RequestReader(endpoint)
        try:
            asked = reader.read(query=query, body=body, content_type=kind, has_body=bool(body))
        except Problem as problem:
            refused: Problem | None = problem
        else:
            refused = None
            assert set(asked.values) <= set(endpoint.by_name)
            assert 1 <= asked.limit <= 1000
        assert refused is None or refused.status in (400, 415)
        assert refused is None or json.loads(problem_body(refused))


@settings(deadline=None)
@given(st.sampled_from(sorted(SENDABLE, key=str)).flatmap(
    lambda kind: st.tuples(st.just(kind), SENDABLE[kind])))  # fmt: skip
def test_canonical_text_is_canonical(sent: tuple[type, str]) -> None:
    """Reading a canonical text again gives the same text, and the same Python value."""
    kind, text = sent
    spec = {int: find.by_name["id"], str: find.by_name["name"], float: find.by_name["score"]}[kind]
    once = spec.text_of(text)

    assert once == spec.text_of(once)
    assert KINDS[kind].to_python(once) == kind(text)
