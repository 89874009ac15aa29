"""How one sees from outside that a process is ready: it listens, or it answers HTTP.

Invariant: a check answers within its timeout and never raises; not ready is an answer.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable

CHECK_TIMEOUT_S = 2.0


def listens(host: str, port: int) -> Callable[[], bool]:
    """Return a check that is true once somebody accepts connections there."""

    def check() -> bool:
        try:
            socket.create_connection((host, port), timeout=CHECK_TIMEOUT_S).close()
        except OSError:
            return False
        return True

    return check


def answers_http(host: str, port: int, path: str = "/") -> Callable[[], bool]:
    """Return a check that is true once a GET of this path is answered below status 500."""

    def check() -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=CHECK_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return check
