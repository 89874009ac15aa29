"""Which TCP ports of the loopback interface the local cluster uses.

Invariant: a port is only handed out after it could be bound, and never from the kernel's
ephemeral range, so an outgoing connection cannot sit on a remembered port at the next start.
"""

from __future__ import annotations

import secrets
import socket

from engine.errors import PortTaken

LOOPBACK = "127.0.0.1"
PORT_FIRST = 15_000
PORT_LAST = 32_000  # Linux hands out ephemeral ports from 32768 on
TRIES_MAX = 400


def is_free(port: int, *, host: str = LOOPBACK) -> bool:
    """Tell whether a server could listen on this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(*, avoid: frozenset[int] = frozenset()) -> int:
    """Return a loopback port nobody listens on, other than those in ``avoid``.

    Raises:
        PortTaken: No free port was found in 400 tries.
    """
    for _ in range(TRIES_MAX):
        port = PORT_FIRST + secrets.randbelow(PORT_LAST - PORT_FIRST)
        if port not in avoid and is_free(port):
            return port
    raise PortTaken(f"no free port between {PORT_FIRST} and {PORT_LAST} on {LOOPBACK}")


def fixed_port(text: str, *, name: str = "PORT") -> int:
    """Return the port an operator asked for by number.

    Raises:
        PortTaken: It is not a port number, or somebody listens on it already.
    """
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65_535:
        raise PortTaken(f"{name}={text!r} is not a port number between 1 and 65535")
    if not is_free(int(text)):
        raise PortTaken(f"{name}={text} is in use: stop what listens there or choose another")
    return int(text)
