"""The rows of all workers of one site on one machine, kept through restarts of each of them.

Every worker owns one file, mapped into memory, and copies its rows there a few times a second; it
holds a lock on the file for as long as it lives, however it ends. Whoever wants the totals adds up
the living and folds what the dead left into ``base.json``.

Invariant: a counter that was seen once never goes back, and nothing is counted twice: folding and
adding up happen under one lock, and the base names the files that it holds until they are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import mmap
import os
import struct
import uuid
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from modeldefs.wire.meters import Table, Totals, add_totals

logger = logging.getLogger(__name__)

MAGIC = b"SPMETER1"
_HEAD = struct.Struct("<8sI")
_CELL_BYTES = 8
ENDING = ".meters"


@dataclass(slots=True)
class Base:
    """What dead workers left."""

    source: str = field(default_factory=lambda: uuid.uuid4().hex)
    folded: list[str] = field(default_factory=list)
    totals: Totals = field(default_factory=dict)


class MeterFile:
    """The file of one living worker. Only its owner writes to it."""

    def __init__(self, path: Path, tables: Sequence[Table]) -> None:
        self._tables = tuple(tables)
        head = _header(tables)
        cells = sum(len(row) for table in tables for row in table.rows.values())
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(descriptor, len(head) + cells * _CELL_BYTES)
            self._map = mmap.mmap(descriptor, 0)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        self._descriptor = descriptor
        self._cells = memoryview(self._map)[len(head) :].cast("Q")
        self.publish()
        # Last of all: a file without its head is one that is not yet to be read.
        self._map[: len(head)] = head

    def publish(self) -> None:
        """Let others see the rows as they are now."""
        rows = (row for table in self._tables for row in table.rows.values())
        self._cells[:] = memoryview(array("Q", chain.from_iterable(rows)))

    def close(self) -> None:
        """Leave the last numbers behind, for the base."""
        if self._descriptor < 0:
            return
        self.publish()
        self._cells.release()
        self._map.close()
        os.close(self._descriptor)
        self._descriptor = -1


class MeterFolder:
    """The files of one site on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, tables: Sequence[Table]) -> MeterFile:
        """Return a file of this process's own for these tables.

        Raises:
            OSError: The folder cannot be written.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}{ENDING}"
        with self._locked():
            return MeterFile(self.path / name, tables)

    def read(self) -> tuple[str, Totals, int]:
        """Return the site's name of itself, the totals of all its workers, and how many live."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            base = self._base()
            living = self._fold(base)
            totals: Totals = {}
            add_totals(totals, base.totals)
            for read in living:
                add_totals(totals, read)
            return base.source, totals, len(living)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _base(self) -> Base:
        try:
            known = json.loads((self.path / "base.json").read_text(encoding="utf-8"))
            return Base(str(known["source"]), list(known["folded"]), dict(known["totals"]))
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            logger.warning("meters.base-broken", extra={"path": str(self.path)})
        base = Base()
        self._keep(base)
        return base

    def _keep(self, base: Base) -> None:
        document = {"source": base.source, "folded": base.folded, "totals": base.totals}
        part = self.path / "base.json.part"
        part.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")
        part.chmod(0o600)
        part.replace(self.path / "base.json")

    def _fold(self, base: Base) -> list[Totals]:
        """Move what the dead left into the base; return what each of the living has."""
        living: list[Totals] = []
        dead: list[Path] = []
        for path in sorted(self.path.glob(f"*{ENDING}")):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                is_alive = not _try_lock(descriptor)
                if path.name in base.folded:
                    dead.append(path)  # counted, but whoever folded it did not get to this
                    continue
                read = _read(descriptor)
            finally:
                os.close(descriptor)
            if is_alive:
                living.append(read)
                continue
            add_totals(base.totals, read, with_gauges=False)
            base.folded.append(path.name)
            dead.append(path)
        if dead:
            self._keep(base)
            for path in dead:
                path.unlink(missing_ok=True)
            base.folded = []
            self._keep(base)
        return living


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _header(tables: Iterable[Table]) -> bytes:
    layout = [[table.name, list(table.rows), list(table.columns)] for table in tables]
    text = json.dumps(layout, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + _HEAD.size) % _CELL_BYTES)
    return _HEAD.pack(MAGIC, len(text)) + text


def _read(descriptor: int) -> Totals:
    data = b""
    while piece := os.read(descriptor, 1 << 20):
        data += piece
    totals: Totals = {}
    if len(data) < _HEAD.size:
        return totals
    magic, length = _HEAD.unpack_from(data)
    if magic != MAGIC:
        return totals
    layout: list[Any] = json.loads(data[_HEAD.size : _HEAD.size + length])
    cells = memoryview(data)[_HEAD.size + length :].cast("Q")
    at = 0
    for name, labels, columns in layout:
        rows = totals.setdefault(name, {})
        for label in labels:
            row = zip(columns, cells[at : at + len(columns)], strict=True)
            rows[label] = {column: number for column, number in row if number}
            at += len(columns)
    return totals
