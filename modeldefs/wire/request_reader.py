"""From the bytes of a connection to whole, well-formed, bounded HTTP/1 requests.

llhttp parses; this adds what it leaves open and what smuggling lives on: exactly one Host that is
one, no second reading of where a body ends, a request target of this host, every size bounded. The
first breach makes the reader deaf for good: bytes after it cannot be told apart any more.

Sans-IO: bytes in, calls to a sink out; nothing raises.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Protocol

import httptools

from modeldefs.wire.http1 import HttpLimits, HttpRequest
from modeldefs.wire.known_heads import REQUEST_LINE, KnownHeads

logger = logging.getLogger(__name__)

IDLE, HEAD, BODY = range(3)

# Two names that WSGI and ASGI frameworks would read as one: a proxy may have checked the other.
_UNSAFE_NAME = b"_"
_WATCHED = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_VERSION_BYTES = len(b"  HTTP/1.1")


class ReadRequest(HttpRequest, eq=False):
    """A request with what the protocol must know to reply to it."""

    version: str = "1.1"
    keep_alive: bool = True
    upgrade: bool = False

    @property
    def takes_chunks(self) -> bool:
        """HTTP/1.0 knows no chunks."""
        return self.version != "1.0"


class Sink(Protocol):
    """Where a reader puts what it read, in order."""

    def on_request(self, request: ReadRequest) -> None:
        """Take a whole request."""

    def on_expect(self) -> None:
        """The body of the request being read is only sent after ``100 Continue``."""

    def on_refusal(self, code: str) -> None:
        """Take the end: after the requests before it, refuse with this problem and close."""


class RequestReader:
    """Reads the requests of one connection."""

    __slots__ = (
        "_body",
        "_body_bytes_max",
        "_body_max",
        "_body_size",
        "_chunked",
        "_expect",
        "_head_size",
        "_header_bytes_max",
        "_header_count",
        "_header_count_max",
        "_headers",
        "_heads",
        "_host",
        "_keep_alive",
        "_length",
        "_line_bytes_max",
        "_method",
        "_parser",
        "_path",
        "_query",
        "_quiet",
        "_sink",
        "_trusted_host",
        "_upgrade",
        "_url",
        "_version",
        "client_host",
        "deaf",
        "number",
        "state",
    )

    _method: bytes
    _version: str
    _head_size: int
    _header_count: int
    _length: int
    _chunked: bool
    _expect: bool

    def __init__(
        self,
        *,
        limits: HttpLimits,
        body_bytes_max: Callable[[bytes], int],
        sink: Sink,
        heads: KnownHeads | None = None,
    ) -> None:
        self.client_host = ""
        self.state = IDLE
        self.number = 0  # of requests begun
        self.deaf = False
        self._line_bytes_max = limits.request_line_bytes_max
        self._header_bytes_max = limits.header_bytes_max
        self._header_count_max = limits.header_count_max
        self._body_bytes_max = body_bytes_max
        self._sink = sink
        self._heads = KnownHeads() if heads is None else heads
        self._parser = httptools.HttpRequestParser(self)
        # What follows `Connection: close` is not looked at, so it need not be an error.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._method, self._version = b"", ""
        self._trusted_host: bytes | None = None  # the last one that was checked
        self._reset()

    @property
    def body_bytes_read(self) -> int:
        """How much of the body of the request being read has come."""
        return self._body_size

    def feed(self, data: bytes) -> int | None:
        """Read these bytes; the position behind an upgrade request in them, else None."""
        if self.deaf:
            return None
        if self.state != IDLE:
            return self._parse(data)
        begin = self._read_known(data)
        if begin == len(data) or self.deaf:
            return None
        if begin:
            data = data[begin:]
        number = self.number
        behind_upgrade = self._parse(data)
        if behind_upgrade is not None:
            return begin + behind_upgrade
        if self.number == number + 1 and self.state == IDLE and not self.deaf and self._is_plain():
            self._heads.remember(data, self._headers, max(self._length, 0))
        return None

    def _read_known(self, data: bytes) -> int:
        """Read the requests whose header block is known; return how many bytes they are."""
        by_block = self._heads.by_block
        begin, size = 0, len(data)
        while begin < size and not self.deaf:
            line_end = data.find(b"\r\n", begin)
            block_end = data.find(b"\r\n\r\n", line_end)
            if line_end < 0 or block_end < 0:
                break
            block = data[line_end:block_end]
            head, key = by_block.get(block), None
            if head is None:
                keyed = self._heads.keyed(block)
                if keyed is None:
                    break
                head, key = keyed
            line = REQUEST_LINE.fullmatch(data, begin, line_end)
            body_begin = block_end + 4
            end = body_begin + head.length
            if line is None or end > size:
                break
            if line_end - begin > self._line_bytes_max:
                break
            method, path, query = line.groups(b"")
            if head.length and head.length > self._body_bytes_max(path):
                break
            self.number += 1
            begin = end
            self._sink.on_request(
                ReadRequest(
                    method,
                    path,
                    query,
                    head.headers if key is None else head.headers_with(key),
                    data[body_begin:end] if head.length else b"",
                    self.client_host,
                    head,
                    key,
                )
            )
        return begin

    def _is_plain(self) -> bool:
        return not (self._chunked or self._expect or self._upgrade) and self._version == "1.1"

    def _parse(self, data: bytes) -> int | None:
        number, progress = (self.number, self._progress()) if self.state != IDLE else (-1, 0)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return int(upgrade.args[0])
        except httptools.HttpParserCallbackError:
            logger.exception("http.reader_failed")
            self.refuse("internal")
        except httptools.HttpParserError:
            self.refuse("invalid-request")
        if number == self.number and self.state != IDLE and progress == self._progress():
            # Part of one header, trailer or length line, which only the parser sees growing.
            self._quiet += len(data)
            if self._quiet > self._header_bytes_max:
                self.refuse("header-too-large")
        return None

    def refuse(self, code: str) -> None:
        """End reading over a breach, or over time."""
        if not self.deaf:
            self.deaf = True
            self.state = IDLE
            self._sink.on_refusal(code)

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.number += 1
        self.state = HEAD
        self._reset()

    def on_url(self, url: bytes) -> None:
        """Take a part of the request target."""
        if self.deaf:
            return
        self._url += url
        if len(self._url) > self._line_bytes_max:
            self.refuse("uri-too-long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer, which is only counted."""
        if self.deaf:
            return
        size = self._head_size = self._head_size + len(name) + len(value) + 4
        count = self._header_count = self._header_count + 1
        if size > self._header_bytes_max or count > self._header_count_max:
            self.refuse("header-too-large")
        elif self.state == HEAD:
            name = name.lower()
            if _UNSAFE_NAME in name or (name in _WATCHED and not self._watch(name, value)):
                self.refuse("invalid-request")
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the head as a whole."""
        if self.deaf:
            return
        self.state = BODY
        parser = self._parser
        version = self._version = parser.get_http_version()
        method = self._method = parser.get_method()
        self._keep_alive = version == "1.1" and parser.should_keep_alive()
        self._upgrade = parser.should_upgrade()
        code = self._breach(method, version)
        if code:
            self.refuse(code)
            return
        if self._length or self._chunked:
            self._body_max = self._body_bytes_max(self._path)
            if self._length > self._body_max:
                self.refuse("body-too-large")
            elif self._expect:
                self._sink.on_expect()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if self.deaf:
            return
        self._body_size += len(body)
        if self._body_size > self._body_max:
            self.refuse("body-too-large")
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand out the request."""
        if self.deaf:
            return
        self.state = IDLE
        self.deaf = not self._keep_alive
        body = self._body
        self._sink.on_request(
            ReadRequest(
                self._method,
                self._path,
                self._query,
                self._headers,
                b"".join(body) if body else b"",
                self.client_host,
                version=self._version,
                keep_alive=self._keep_alive,
                upgrade=self._upgrade,
            )
        )

    # Inside

    def _reset(self) -> None:
        self._url = self._path = self._query = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_size = self._header_count = self._quiet = 0
        self._host: bytes | None = None
        self._length = -1
        self._chunked = self._expect = self._upgrade = self._keep_alive = False
        self._body: list[bytes] = []
        self._body_size = 0
        self._body_max = 0

    def _progress(self) -> int:
        return len(self._url) + self._head_size + self._body_size

    def _watch(self, name: bytes, value: bytes) -> bool:
        if name == b"host":
            first, self._host = self._host is None, value
            return first
        if name == b"content-length":
            first, self._length = self._length < 0, int(value)
            return first
        if name == b"transfer-encoding":
            first, self._chunked = not self._chunked, True
            return first and value.lower() == b"chunked"
        self._expect = True
        return value.lower() == b"100-continue"

    def _breach(self, method: bytes, version: str) -> str:
        if version != "1.1" and (version != "1.0" or self._chunked):
            return "invalid-request"
        url = self._url
        if len(method) + len(url) + _VERSION_BYTES > self._line_bytes_max:
            return "uri-too-long"
        if not self._is_host(version) or not url.isascii() or b"#" in url:
            return "invalid-request"
        if not url.startswith(b"/"):
            url = self._origin_form(url)
        # A body behind an upgrade request would be read as the new protocol, or as a request.
        if not url or (self._upgrade and (self._length > 0 or self._chunked)):
            return "invalid-request"
        self._path, _, self._query = url.partition(b"?")
        return ""

    def _is_host(self, version: str) -> bool:
        host = self._host
        if host is None:
            return version == "1.0"
        if host != self._trusted_host:
            if not _HOST.fullmatch(host):
                return False
            self._trusted_host = host
        return True

    def _origin_form(self, url: bytes) -> bytes:
        """Return the target without this host before it; empty if it is anything else."""
        scheme, separator, rest = url.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https") or self._host is None:
            return b""
        end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        if rest[:end].lower() != self._host.lower():
            return b""
        return rest[end:] if rest[end : end + 1] == b"/" else b"/" + rest[end:]
