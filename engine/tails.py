"""Follows log files and passes on what is added, line by line, with the process's name.

Invariant: a line is passed on whole and once, by whoever calls ``pump``; nothing waits for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

READ_BYTES_MAX = 1_000_000


class LogEcho:
    """The logs that are followed, and how far each was read."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._read_to: dict[tuple[str, Path], int] = {}

    def follow(self, name: str, log: Path) -> None:
        """Pass on what is added to this log from now on."""
        self._read_to[name, log] = log.stat().st_size if log.exists() else 0

    def pump(self) -> None:
        """Pass on every complete line added since the last call."""
        for name, log in self._read_to:
            with contextlib.suppress(FileNotFoundError), log.open("rb") as stream:
                position = self._read_to[name, log]
                if log.stat().st_size < position:  # it was put aside and begun anew
                    position = 0
                stream.seek(position)
                added = stream.read(READ_BYTES_MAX)
                whole = len(added) if len(added) == READ_BYTES_MAX else added.rfind(b"\n") + 1
                self._read_to[name, log] = position + whole
                for line in added[:whole].decode(errors="replace").splitlines():
                    self._write(f"{name} | {line}")
