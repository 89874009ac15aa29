"""Bytes over a socket to a real server, and its answers read as strictly as a proxy would.

Invariant: whatever comes back is a run of whole, well-formed answers, or the test fails.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer: what a client has to believe."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The problem, checked for the members that every one has."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        told: dict[str, Any] = json.loads(self.body)
        assert told["status"] == self.status
        assert told["type"] == f"/problems/{told['code']}"
        assert isinstance(told["retryable"], bool)
        return told


def connect(url: str) -> socket.socket:
    """Return a new connection to a server."""
    place = urlsplit(url)
    assert place.hostname is not None
    return socket.create_connection((place.hostname, place.port or 80), timeout=PATIENCE_S)


def read_to_the_end(peer: socket.socket) -> bytes:
    """Return what comes until the server closes; fail if it does not."""
    blocks = []
    try:
        while block := peer.recv(65_536):
            blocks.append(block)
    except ConnectionResetError:
        pass  # it closed with bytes of ours unread
    return b"".join(blocks)


def exchange(url: str, pieces: Iterable[bytes]) -> list[RawAnswer]:
    """Send bytes on a connection of their own; return all answers up to the server's close."""
    with connect(url) as peer:
        try:
            for piece in pieces:
                peer.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it refused before it had all
        return answers_in(read_to_the_end(peer))


class RawClient:
    """A client that keeps its connection, and makes a new one when that has ended."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._peer: socket.socket | None = None

    def ask(self, request: bytes) -> RawAnswer | None:
        """Return the answer to a request; None if the connection ended before it was whole."""
        try:
            if self._peer is None:
                self._peer = connect(self._url)
            self._peer.sendall(request)
            data = b""
            while block := self._peer.recv(65_536):
                data += block
                if is_whole(data):
                    answer, rest = first_answer(data)
                    assert rest == b"", f"more than one answer: {rest[:200]!r}"
                    if answer.headers.get("connection") == "close":
                        self.close()
                    return answer
        except (BrokenPipeError, ConnectionResetError, ConnectionRefusedError):
            pass
        self.close()
        return None

    def close(self) -> None:
        """End the connection."""
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.close()


def is_whole(data: bytes) -> bool:
    """Have all bytes of an answer with a length come?"""
    head, end, rest = data.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return bool(end) and length is not None and len(rest) >= int(length[1])


def answers_in(data: bytes) -> list[RawAnswer]:
    """Return the answers that these bytes are; fail if they are anything else."""
    answers = []
    while data:
        answer, data = first_answer(data)
        answers.append(answer)
    return answers


def first_answer(data: bytes) -> tuple[RawAnswer, bytes]:
    """Return the first answer in these bytes, and what is behind it."""
    head, end, rest = data.partition(b"\r\n\r\n")
    assert end, f"no whole head: {data[:200]!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    assert version == "HTTP/1.1", first
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        assert colon, line
        assert name.lower() not in headers or name.lower() in ("set-cookie", "vary"), line
        headers[name.lower()] = value
    code = int(status.split(" ")[0])
    if headers.get("transfer-encoding") == "chunked":
        assert "content-length" not in headers, head
        body, rest = _chunks(rest)
        return RawAnswer(code, headers, body), rest
    size = int(headers.get("content-length", "0"))
    assert "transfer-encoding" not in headers, head
    assert len(rest) >= size, f"{len(rest)} of {size} bytes of a body"
    return RawAnswer(code, headers, rest[:size]), rest[size:]


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        assert end, f"no whole chunk: {line!r}"
        size = int(line, 16)
        assert data[size : size + 2] == b"\r\n", f"a chunk of {size} bytes is not whole"
        body, data = body + data[:size], data[size + 2 :]
        if not size:
            return body, data
