"""HTTP with one deadline for the whole exchange, for talking to nodes that may be hostile.

``requests``' own timeout counts anew for each packet, so a peer that drips a byte at a time holds
its caller for ever. Here every read and write of the socket is given what is left of the deadline.
No redirects, proxies, netrc, cookies, retries or content codings, and no body above a limit.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import HTTPError

CONNECT_S_MAX = 1.0
READ_BYTES = 65536

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


class NodeUnreachable(Exception):
    """The node did not answer in time, or not at all."""


class AnswerRefused(Exception):
    """The node's answer breaks the rules: a redirect, a coding, or too many bytes."""


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """Status, headers in lower case, and the whole body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _DeadlineSocket(socket.socket):
    """A socket whose every operation ends at the deadline of the current exchange."""

    def _arm(self) -> None:
        ends = _deadline.get()
        if ends is not None:
            left = ends - time.monotonic()
            if left <= 0:
                raise TimeoutError("deadline")
            self.settimeout(left)

    def recv_into(self, *args: Any, **known: Any) -> int:
        self._arm()
        return super().recv_into(*args, **known)

    def recv(self, *args: Any, **known: Any) -> bytes:
        self._arm()
        return super().recv(*args, **known)

    def sendall(self, *args: Any, **known: Any) -> None:
        self._arm()
        super().sendall(*args, **known)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()
        timeout = plain.gettimeout()
        armed = _DeadlineSocket(fileno=plain.detach())
        armed.settimeout(timeout)
        return armed


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **known: Any) -> None:
        super().init_poolmanager(*args, **known)
        # Plain HTTP alone: over TLS the socket is wrapped again and the deadline would be lost.
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool}


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers.clear()
    session.adapters.clear()
    session.mount("http://", _Adapter(max_retries=0))
    return session


def exchange(
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    deadline_s: float,
    body_bytes_max: int,
) -> RawAnswer:
    """Send one request on a connection of its own and return the whole answer.

    Raises:
        NodeUnreachable: No connection, a broken one, or the deadline passed.
        AnswerRefused: A redirect, a content coding, or more than ``body_bytes_max``.
    """
    token = _deadline.set(time.monotonic() + deadline_s)
    sent = {
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Content-Length": str(len(body)),
        **headers,
    }
    try:
        with _session() as session:
            request = requests.Request(method, url, headers=sent, data=body or None).prepare()
            request.url = url  # as signed, not as requests would quote it again
            response = session.send(
                request,
                timeout=(min(CONNECT_S_MAX, deadline_s), deadline_s),
                stream=True,
                allow_redirects=False,
            )
            return _whole(response, body_bytes_max)
    except (requests.RequestException, HTTPError, OSError) as failure:
        raise NodeUnreachable(f"{url}: {type(failure).__name__}") from failure
    finally:
        _deadline.reset(token)


def _whole(response: requests.Response, body_bytes_max: int) -> RawAnswer:
    with response:
        if 300 <= response.status_code < 400:
            raise AnswerRefused("the node answered with a redirect")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise AnswerRefused("the node answered with a content coding")
        body = bytearray()
        for piece in response.raw.stream(READ_BYTES, decode_content=False):
            body += piece
            if len(body) > body_bytes_max:
                raise AnswerRefused(f"the node's answer is larger than {body_bytes_max} bytes")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return RawAnswer(response.status_code, headers, bytes(body))
