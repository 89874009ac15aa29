"""However a client's bytes are split or damaged, the reader reads the same or refuses."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from modeldefs.wire.http1 import HttpLimits
from modeldefs.wire.known_heads import KnownHeads
from modeldefs.wire.request_reader import ReadRequest, RequestReader

UNSIZED = (
    b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: t\r\n\r\n"
)
REQUESTS = [
    b"GET /get_user?id=1 HTTP/1.1\r\nHost: a.example:80\r\nAccept: */*\r\n\r\n",
    b'QUERY /get_user HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n{"id":1}',
    UNSIZED,
    b"HEAD http://a/h?q HTTP/1.1\r\nHost: a\r\n\r\n",
]


def _sent(request: ReadRequest) -> tuple[object, ...]:
    """Return all that was sent; how much of it was known before is not."""
    said = msgspec.structs.asdict(request)
    del said["known_head"], said["key_beside"]
    return tuple(said.values())


class _Sink:
    def __init__(self) -> None:
        self.requests: list[tuple[object, ...]] = []
        self.refusals: list[str] = []

    def on_request(self, request: ReadRequest) -> None:
        assert not self.refusals
        self.requests.append(_sent(request))

    def on_expect(self) -> None: ...

    def on_refusal(self, code: str) -> None:
        self.refusals.append(code)


def _read(data: bytes, cuts: list[int], heads: KnownHeads | None = None) -> _Sink:
    sink = _Sink()
    reader = RequestReader(
        limits=HttpLimits(request_line_bytes_max=60),
        body_bytes_max=lambda _: 100,
        sink=sink,
        heads=heads,
    )
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, end in pairwise(places):
        reader.feed(data[start:end])
    return sink


@given(
    parts=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 10_000), max_size=40),
)
def test_where_bytes_are_split_does_not_matter(parts: list[bytes], cuts: list[int]) -> None:
    """A pipeline reads the same in one piece and in any pieces."""
    data = b"".join(parts)
    whole, split = _read(data, []), _read(data, cuts)

    assert len(whole.requests) == len(parts)
    assert whole.requests == split.requests
    assert split.refusals == []


@given(
    parts=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3),
    place=st.integers(0, 10_000),
    junk=st.one_of(st.binary(max_size=8), st.sampled_from([b"\n", b"\r\n", b"\0", b": ", b"\r"])),
    cuts=st.lists(st.integers(0, 10_000), max_size=10),
)
def test_damage_is_read_the_same_however_it_is_split(
    parts: list[bytes], place: int, junk: bytes, cuts: list[int]
) -> None:
    """Two readings of the same bytes never differ: that difference is what smuggling needs."""
    data = b"".join(parts)
    place %= len(data)
    data = data[:place] + junk + data[place:]
    whole, split = _read(data, []), _read(data, cuts)

    assert whole.requests == split.requests
    assert len(split.refusals) <= 1


PLAIN = [
    b"GET /get_user?id=1 HTTP/1.1\r\nHost: a.example:80\r\nAccept: */*\r\n\r\n",
    b"GET /get_user?id=2&x=%20y HTTP/1.1\r\nHost: a.example:80\r\nAccept: */*\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: b\r\n\r\n",
    b'POST /insert HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n{"id":1}',
    b'POST /insert?q HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n{"id":2}',
    b'GET /get HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n{"id":3}',
    b"GET /a HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 1\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 2\r\nAccept: b\r\n\r\n",
    b"GET /a HTTP/1.1\r\nidempotency-key: 3\r\nHost: a\r\nAccept: b\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 4\r\nIdempotency-key: 5\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nIdempotency-Key:  6\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"POST /insert HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n" + b"x" * 101,
    b"GET /" + b"a" * 60 + b" HTTP/1.1\r\nHost: b\r\n\r\n",
]


def _warm() -> KnownHeads:
    heads = KnownHeads()
    for request in (*PLAIN, *REQUESTS):
        _read(request, [], heads)
    return heads


def test_plain_heads_are_known() -> None:
    """The tests below compare something: the plain blocks are known, the others never."""
    heads = _warm()

    assert len(heads.by_block) == 3
    assert len(heads.by_rest) == 3
    blocks = [*heads.by_block, *(before + behind for before, behind in heads.by_rest)]
    assert not any(b"close" in b or b"pgrade" in b or b"chunked" in b for b in blocks)
    assert not any(b"dempotency" in b for b in blocks)


@given(
    parts=st.lists(st.sampled_from([*PLAIN, *REQUESTS]), min_size=1, max_size=5),
    place=st.integers(0, 10_000),
    cut=st.integers(0, 8),
    junk=st.one_of(
        st.binary(max_size=6),
        st.sampled_from([b"", b"\n", b"\r\n", b"\0", b": ", b"\r", b"#", b" ", b"GET", b"/1.0"]),
    ),
    cuts=st.lists(st.integers(0, 10_000), max_size=6),
)
def test_a_known_head_is_read_as_the_parser_would(
    parts: list[bytes], place: int, cut: int, junk: bytes, cuts: list[int]
) -> None:
    """With every header block known beforehand the same bytes give the same requests and the same
    refusals as with none, damaged or not, however they are split.
    """
    data = b"".join(parts)
    place %= len(data)
    data = data[:place] + junk + data[place + cut :]
    if not data:
        return
    cold = RequestReaderWithoutMemory()
    known, parsed = _read(data, cuts, _warm()), _read(data, cuts, cold)

    assert parsed.requests == known.requests
    assert parsed.refusals == known.refusals


class RequestReaderWithoutMemory(KnownHeads):
    """Knows nothing and remembers nothing."""

    def remember(self, data: bytes, headers: list[tuple[bytes, bytes]], length: int) -> None:
        """Forget it."""
