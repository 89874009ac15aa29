"""The tags of the shards that one ask goes to: what each is asked for, and what each says.

Invariant: a tag stands beside the rows of the same answer of the same shard.
"""

from __future__ import annotations

import msgspec

from modeldefs.kit.reuse import Reuse
from modeldefs.wire import calls


class LegTags:
    """What the legs of one try are told, and tell."""

    __slots__ = ("_known", "_reuse", "_tags", "_unchanged")

    def __init__(self, reuse: Reuse, legs: int) -> None:
        self._reuse = reuse
        self._known = reuse.known(legs)
        self._tags = [""] * legs
        self._unchanged: set[int] = set()

    def known(self, place: int) -> str:
        """Return the tag that a leg's shard shall compare its own with."""
        return self._known[place]

    def take(self, place: int, body: bytes) -> tuple[int, bytes] | None:
        """Return the status and body in a tagged answer; None if no node of ours would send it.

        The body of a leg that is unchanged is empty.
        """
        try:
            told = calls.decode_tagged(body)
        except msgspec.DecodeError:
            return None
        if told.status == calls.UNCHANGED:
            if not told.tag or told.tag != self._known[place]:
                return None
            self._unchanged.add(place)
        elif told.status not in (calls.WHOLE, calls.MORE):
            return None
        self._tags[place] = told.tag
        return told.status, told.body

    @property
    def is_unchanged(self) -> bool:
        """Does every shard say that the caller has its rows?"""
        return bool(self._tags) and len(self._unchanged) == len(self._tags)

    def to_ask_again(self) -> list[int]:
        """Return the legs whose rows are needed after all, as those of another have changed."""
        again = sorted(self._unchanged)
        self._unchanged.clear()
        self._known = ("",) * len(self._tags)
        return again

    def settle(self) -> None:
        """Let these be the tags of the answer."""
        self._reuse.tags = tuple(self._tags)


def tags_of(reuse: Reuse | None, legs: int) -> LegTags | None:
    """Return the tags of so many legs; None where nobody needs them."""
    if reuse is None or not reuse.base or not legs:
        return None
    return LegTags(reuse, legs)
