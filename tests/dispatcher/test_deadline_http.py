"""A hostile node holds the dispatcher neither longer nor with more bytes than allowed."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dispatcher_site.registry.deadline_http import (
    AnswerRefused,
    NodeUnreachable,
    RawAnswer,
    exchange,
)

DRIP_EVERY_S = 0.02
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve one connection by a function, and give its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            try:
                answer(peer)
            except OSError:
                return

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    finally:
        listener.close()
        server.join(timeout=5)


def ask(url: str, *, deadline_s: float = 0.3, body_bytes_max: int = 1000) -> RawAnswer:
    """Send a request with small limits."""
    return exchange(
        method="GET",
        url=url,
        headers={},
        body=b"",
        deadline_s=deadline_s,
        body_bytes_max=body_bytes_max,
    )


def drip(text: bytes) -> Callable[[socket.socket], None]:
    """Return an answer of single bytes with a pause before each."""
    pause = threading.Event()

    def answer(peer: socket.socket) -> None:
        for byte in text:
            peer.sendall(bytes([byte]))
            pause.wait(DRIP_EVERY_S)

    return answer


def test_an_honest_answer_arrives() -> None:
    """Status, headers in lower case, and the body."""
    with serving(lambda peer: peer.sendall(HEAD % 2 + b"ok")) as url:
        answer = ask(url)

    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.headers["content-length"] == "2"


@pytest.mark.parametrize("text", [HEAD % 500 + b"x" * 500, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 500])
def test_a_dripping_peer_is_left_at_the_deadline(text: bytes) -> None:
    """A byte at a time, in head or body, does not start the clock anew."""
    begun = time.monotonic()

    with serving(drip(text)) as url, pytest.raises(NodeUnreachable):
        ask(url)

    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s"
        % (len(gzip.compress(b"x" * 10**6)), gzip.compress(b"x" * 10**6)),
        HEAD % 1001 + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000,
    ],
)
def test_what_breaks_the_rules_is_refused(answer: bytes) -> None:
    """Redirects, content codings and bodies above the limit are not followed or read."""
    with serving(lambda peer: peer.sendall(answer)) as url, pytest.raises(AnswerRefused):
        ask(url)


def test_nobody_listening_is_unreachable() -> None:
    """A refused connection has its own name."""
    with pytest.raises(NodeUnreachable):
        ask("http://127.0.0.1:1/x")


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy variable does not send signed requests elsewhere."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    with serving(lambda peer: peer.sendall(HEAD % 2 + b"ok")) as url:
        assert ask(url).body == b"ok"
