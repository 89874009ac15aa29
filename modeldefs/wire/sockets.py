"""Where a node's unix socket lies, for a dispatcher on the same machine and of the same account.

A stream over a unix socket spares both ends a good part of TCP's work. Both ends derive the path
from the node's port, so that nobody is told a path: a node cannot send a dispatcher elsewhere.
Invariant: the folder belongs to this account and nobody else can enter it, else there is no
socket and TCP is used. The handshake proves who answers, there as here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from modeldefs.wire.enrolment import is_loopback

SOCKETS = "SHARDPOINT_SOCKETS"
OFF = "off"
PATH_BYTES_MAX = 103  # macOS; Linux has 107


def node_socket(port: int, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the path of the socket of the node at this TCP port; None if there shall be none.

    ``SHARDPOINT_SOCKETS`` names the folder, or is ``off``; else it is this account's own folder
    below ``XDG_RUNTIME_DIR`` or the folder for temporary files.
    """
    named = environ.get(SOCKETS, "")
    if named == OFF:
        return None
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if named:
        folder = Path(named).absolute()
    elif runtime:
        folder = Path(runtime) / "shardpoint"
    else:
        folder = Path(tempfile.gettempdir()) / f"shardpoint-{os.getuid()}"
    path = folder / f"node-{port}.sock"
    return path if len(os.fsencode(path)) <= PATH_BYTES_MAX else None


def prepare(path: Path) -> bool:
    """Make the folder of a socket, and return whether it can be trusted."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return is_private(path.parent)


def is_private(folder: Path) -> bool:
    """Return whether a folder is one that only this account (and root) can enter."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    mine = found.st_uid == os.getuid()
    return stat.S_ISDIR(found.st_mode) and mine and not found.st_mode & 0o077


def socket_to(host: str, port: int, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the socket by which a dispatcher may reach the node at this address, if any."""
    if host != "localhost" and not is_loopback(host):
        return None
    path = node_socket(port, environ)
    return path if path is not None and is_private(path.parent) and path.is_socket() else None
