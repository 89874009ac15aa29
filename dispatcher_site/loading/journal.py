"""What a load remembers on disk, so that ``kill -9`` costs it seconds and never a row.

Blocks are finished in any order; the journal keeps how far *all* of them are done (``done``) and
which may have been begun (``begun``). After a crash the blocks between the two are in doubt: they
are sent again under their old numbers, and a node that has applied one says so. Only if the shard
map changed meanwhile do the numbers prove nothing; then the rows in doubt that are found present
count as loaded.

Invariant: no block is sent before the journal on disk says that it may have been begun.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from dispatcher_site.loading.blocks import Block, Place

BEGUN_AHEAD = 64
WRITE_EVERY_S = 0.5


@dataclass(slots=True)
class Totals:
    """What became of the rows."""

    loaded: int = 0
    skipped: int = 0
    updated: int = 0
    rejected: int = 0
    replayed_parts: int = 0

    def add(self, other: Totals) -> None:
        """Add another count to this one."""
        self.loaded += other.loaded
        self.skipped += other.skipped
        self.updated += other.updated
        self.rejected += other.rejected
        self.replayed_parts += other.replayed_parts

    @property
    def rows(self) -> int:
        """All rows that were dealt with."""
        return self.loaded + self.skipped + self.updated + self.rejected


@dataclass(slots=True)
class State:
    """The journal's contents."""

    load: str
    attempt: int = 0  # how often this file was loaded to its end before
    restarts: int = 0
    finished: bool = False
    epoch: int = 0
    done: Place | None = None  # the first block that is not done
    begun: int = 0  # blocks from this number on were never sent
    doubtful: int = 0  # blocks before this one may be present under another map's numbers
    totals: Totals = field(default_factory=Totals)


def load_id_of(*, model: str, identity: str, options: str, attempt: int) -> str:
    """Return the name of a load: the same file, model and options always give the same."""
    text = "\n".join((model, identity, options, str(attempt)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read(path: Path) -> State | None:
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        done = document.pop("done")
        totals = Totals(**document.pop("totals"))
        return State(**document, done=Place(*done) if done else None, totals=totals)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        # A journal of another release. The nodes still know what they applied.
        return None


class Journal:
    """The journal of one load. Used by the thread that owns the load only."""

    def __init__(
        self, folder: Path, *, model: str, identity: str | None, options: str, epoch: int
    ) -> None:
        # A pipe cannot be read again: its load has a name of its own and leaves no journal.
        named = identity if identity is not None else uuid4().hex
        first = load_id_of(model=model, identity=named, options=options, attempt=0)
        self._path = None if identity is None else folder / f"{first}.json"
        known = _read(self._path) if self._path else None
        attempt = known.attempt if known else 0
        if known and known.finished:
            # It was loaded to its end: whoever loads it again means it.
            known, attempt = None, attempt + 1
        self.is_resumed = known is not None and known.begun > 0
        if known is not None and known.epoch not in (0, epoch):
            known.doubtful = max(known.doubtful, known.begun)
        if known is None:
            name = load_id_of(model=model, identity=named, options=options, attempt=attempt)
            known = State(name, attempt)
        self.state = known
        self.state.epoch = epoch
        self.state.restarts += self.is_resumed
        self._tracker = Tracker(known.done.number if known.done else 0)
        self._written_s = 0.0

    def doubts(self, number: int) -> bool:
        """May rows of this block be present without its number proving it?"""
        return number < self.state.doubtful

    def begin(self, block: Block, parts: int, rejected: int) -> None:
        """Note, on disk if need be, that a block is about to be sent in so many parts."""
        self._tracker.begin(block, parts, rejected)
        if block.place.number >= self.state.begun:
            self.state.begun = block.place.number + BEGUN_AHEAD
            self.write()

    def part_done(self, number: int, totals: Totals) -> None:
        """Note that a part of a block is applied."""
        self._tracker.part_done(number, totals)

    def advance(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Move ``done`` over the blocks that are complete, and write it down now and then."""
        for after, totals in self._tracker.completed():
            self.state.done = after
            self.state.totals.add(totals)
        if clock() - self._written_s >= WRITE_EVERY_S:
            self.write()
            self._written_s = clock()

    def map_moved(self, epoch: int) -> None:
        """Note that the shard map changed under way: block numbers before prove nothing now."""
        self.state.epoch = -epoch
        self.write()

    def finish(self) -> None:
        """Note that the whole file is loaded."""
        self.advance()
        # The file is cut the same way next time, but all of it is sent.
        self.state.done, self.state.begun, self.state.doubtful = None, 0, 0
        self.state.finished = True
        self.write()

    def write(self) -> None:
        """Put the journal on disk, whole or not at all."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = self._path.with_suffix(".part")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(asdict(self.state), stream)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.rename(self._path)


@dataclass(slots=True)
class _Open:
    after: Place
    parts_left: int
    totals: Totals


class Tracker:
    """Which blocks are complete, counted from the first that is not."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._open: dict[int, _Open] = {}

    def begin(self, block: Block, parts: int, rejected: int) -> None:
        """Expect so many parts of a block; a block without parts is complete at once."""
        self._open[block.place.number] = _Open(block.next, parts, Totals(rejected=rejected))

    def part_done(self, number: int, totals: Totals) -> None:
        """Count one part of a block as applied."""
        block = self._open[number]
        block.parts_left -= 1
        block.totals.add(totals)

    def completed(self) -> list[tuple[Place, Totals]]:
        """Return, once, each block that is complete and has none open before it."""
        found = []
        while self._next in self._open and self._open[self._next].parts_left == 0:
            block = self._open.pop(self._next)
            found.append((block.after, block.totals))
            self._next += 1
        return found
