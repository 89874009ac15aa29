"""Putting the parts of an export together: rows in global order, a bounded number of them at once.

Each source (a shard) gives its rows in order, part after part. A row may be handed out as soon as
no source that has more can still bring one before it: up to where the first such source runs out.
What is held or asked for is bounded per source, whatever the size of the export: two parts.

The position is one global place in the order, so an export whose sources changed (another shard
map) begins again behind it with other sources and loses or repeats nothing.

Pure: no Django, no clock, no I/O; the order of arrival does not change what comes out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple

from modeldefs.kit.merge import OrderKey, comparables, sort_entries

# Sizes of parts: one more is fetched to see whether there are more, so these fill steps of 32 and
# make few statements. The first is small: the first rows leave early.
PART_ROWS = (1, 3, 7, 15, 31, 63, 127, 255, 511)
FIRST_STEP = 4
GROWTH_STEPS = 2
PART_ROWS_MAX = PART_ROWS[-1]
PART_BYTES = 262_144  # about what a part of long rows is kept to

Entry = tuple[Sequence[Any], Sequence[Any], int, bytes]  # to compare, as it came, source, row

_place_of = itemgetter(2)
_row_of = itemgetter(3)


class Wanted(NamedTuple):
    """One part to ask for: of which source, behind which position, how many rows."""

    place: int
    after: Sequence[Any] | None
    rows: int


class _Source:
    __slots__ = ("asked", "held", "is_live", "last", "pending", "step")

    def __init__(self, after: Sequence[Any] | None) -> None:
        self.last = after  # the position behind which its next part begins
        self.is_live = True  # it may have more than what has come
        self.asked = 0  # rows of the part under way
        self.held = 0  # rows that came and were not handed out
        self.pending = 0  # those of them whose place is not certain
        self.step = FIRST_STEP


class ExportMerge:
    """Where one export stands."""

    def __init__(
        self, order: Sequence[OrderKey], *, after: Sequence[Any] | None, limit: int | None = None
    ) -> None:
        self._order = order
        self._left = limit  # rows still to be handed out; None: all there are
        self.position = after  # of the last row that was handed out
        self._sources: list[_Source] = []
        self._pending: list[Entry] = []  # a row before them may still come
        self._sorted: list[Entry] = []  # in order; nothing before them can come

    def begin(self, sources: int) -> None:
        """Begin, or begin again, behind the position with these many sources."""
        self._sources = [_Source(self.position) for _ in range(sources)]
        self._pending, self._sorted = [], []

    @property
    def held(self) -> int:
        """How many rows are held."""
        return len(self._pending) + len(self._sorted)

    @property
    def is_ready(self) -> bool:
        """Is there a row to hand out?"""
        return bool(self._sorted)

    @property
    def is_done(self) -> bool:
        """Was the last row handed out?"""
        if self._left == 0:
            return True
        return not self.held and not any(source.is_live for source in self._sources)

    def wanted(self) -> list[Wanted]:
        """Return the parts to ask for now; each is taken to be asked for from here on."""
        found = []
        for place, source in enumerate(self._sources):
            if not source.is_live or source.asked:
                continue
            rows = PART_ROWS[source.step]
            if source.held > rows:
                continue
            if self._left is not None:
                rows = min(rows, self._left - source.held)
                if rows <= 0:
                    continue  # what is held of it is enough
            source.asked = rows
            found.append(Wanted(place, source.last, rows))
        return found

    def take(
        self, place: int, rows: Sequence[bytes], keys: Sequence[Sequence[Any]], more: bool
    ) -> None:
        """Take a part that was asked for.

        Raises:
            ValueError: It is no part: keys do not fit rows, or it is empty and yet has more.
        """
        source = self._sources[place]
        if len(keys) != len(rows) or (more and not rows):
            raise ValueError("a part's keys do not fit its rows")
        source.asked, source.is_live = 0, more
        if rows:
            source.last = keys[-1]
            source.held += len(rows)
            source.pending += len(rows)
            source.step = _next_step(source.step, sum(map(len, rows)) / len(rows))
            order = self._order
            self._pending += zip(comparables(keys, order), keys, repeat(place), rows)
        # A live source that has nothing here may bring what comes before all of this.
        if all(each.pending or not each.is_live for each in self._sources):
            self._settle()

    def shrink(self, place: int) -> bool:
        """Ask for the part anew, and for fewer rows; False if it was one row already."""
        source = self._sources[place]
        if source.asked <= 1:
            return False
        smaller = [step for step, rows in enumerate(PART_ROWS) if rows <= source.asked // 2]
        source.step = smaller[-1] if smaller else 0
        source.asked = 0
        return True

    def hand_out(self, rows_max: int) -> list[bytes]:
        """Return the next rows in order, ``rows_max`` at most; empty if none is ready."""
        most = rows_max if self._left is None else min(rows_max, self._left)
        piece = self._sorted[:most]
        if not piece:
            return []
        del self._sorted[:most]
        self.position = piece[-1][1]
        if self._left is not None:
            self._left -= len(piece)
        for place, count in Counter(map(_place_of, piece)).items():
            self._sources[place].held -= count
        return list(map(_row_of, piece))

    def _settle(self) -> None:
        """Move what is in its final place: all up to where the first live source runs out."""
        pending, sources = self._pending, self._sources
        behind = len(pending)
        if len(sources) > 1:
            sort_entries(pending, self._order)
            going_on = {place for place, source in enumerate(sources) if source.is_live}
            at = behind
            while going_on:
                at -= 1
                place = pending[at][2]
                if place in going_on:
                    going_on.discard(place)
                    behind = at + 1
        settled = pending[:behind]
        del pending[:behind]
        self._sorted += settled
        for place, count in Counter(map(_place_of, settled)).items():
            sources[place].pending -= count


def _next_step(step: int, row_bytes: float) -> int:
    """Return the size of a source's next part, by what its rows weigh."""
    fitting = max(
        (n for n, rows in enumerate(PART_ROWS) if rows * row_bytes <= PART_BYTES), default=0
    )
    return min(step + GROWTH_STEPS, fitting)
