"""The lines that could not be loaded, one JSON object each, in a file to correct and load again.

A line is written, and on disk, before the others of its part are sent: after a crash nothing is
both absent from the cluster and from this file. A line is never in it twice.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import IO

from dispatcher_site.loading.errors import PartlyDone
from dispatcher_site.loading.rows import Reject

REJECTS_MAX = 1_000


class Rejects:
    """The rejects of one run of the command. Safe for several threads."""

    def __init__(self, path: Path, *, keep: bool, rejects_max: int = REJECTS_MAX) -> None:
        self.path = path
        self._rejects_max = rejects_max
        self._keep = keep
        self._lock = threading.Lock()
        self._stream: IO[bytes] | None = None
        self._known = _known_lines(path) if keep else set()

    @property
    def count(self) -> int:
        """How many lines are rejected so far, with those of an interrupted attempt."""
        return len(self._known)

    def add(self, file: str, rejects: list[Reject]) -> None:
        """Write rejected lines down.

        Raises:
            PartlyDone: There are more than allowed; something is wrong with the file as a whole.
        """
        if not rejects:
            return
        with self._lock:
            stream = self._stream or self._opened()
            for reject in rejects:
                if (file, reject.line) in self._known:
                    continue
                self._known.add((file, reject.line))
                stream.write(_document(file, reject))
            stream.flush()
            os.fsync(stream.fileno())
            if len(self._known) > self._rejects_max:
                last = rejects[-1]
                raise PartlyDone(
                    f"more than {self._rejects_max} lines are rejected, see {self.path}; "
                    f"{file} line {last.line}: {last.reason}"
                )

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _opened(self) -> IO[bytes]:
        self._stream = self.path.open("ab" if self._keep else "wb")
        return self._stream


def _document(file: str, reject: Reject) -> bytes:
    text = reject.raw.decode("utf-8", "backslashreplace")
    document = {"file": file, "line": reject.line, "reason": reject.reason, "text": text}
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _known_lines(path: Path) -> set[tuple[str, int]]:
    known: set[tuple[str, int]] = set()
    if not path.exists():
        return known
    for line in path.read_bytes().splitlines():
        try:
            document = json.loads(line)
            known.add((document["file"], document["line"]))
        except (ValueError, KeyError, TypeError):
            continue  # a line that a crash cut short
    return known
