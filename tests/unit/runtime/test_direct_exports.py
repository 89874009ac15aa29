"""Exports of a node that is called directly: of the buckets it owned at the start, or broken."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from modeldefs.kit.asks import LinesOutcome, Outcome, Shards
from modeldefs.kit.exports import Exports
from modeldefs.wire import calls
from shardnode.runtime.direct_parts import OwnParts
from shardnode.runtime.executor import Place
from tests.unit.gateway.scripted import ask


class TwoParts:
    """An executor whose second part is the last one; says before which it changes owners."""

    shard = "s1"

    def __init__(self, owned: list[list[tuple[int, int]]], changes_in: int) -> None:
        self.owned, self.changes_in = owned, changes_in
        self.asked = 0

    def run(self, *, done: Any, **_: Any) -> None:
        self.asked += 1
        if self.asked == self.changes_in:
            self.owned[0] = [(8_192, 16_383)]  # all that it owned went, and as much came
        ids = range(self.asked * 20, self.asked * 20 + 15)
        rows = [b'{"id":"%d"}' % number for number in ids]
        done(calls.PagePart(rows, [[number] for number in ids], self.asked == 1))


class Written:
    """A body that is read at once."""

    is_paused = False

    def __init__(self) -> None:
        self.text, self.ended = b"", asyncio.get_running_loop().create_future()

    def write(self, piece: bytes) -> None:
        self.text += piece

    def end(self) -> None:
        self.ended.set_result("whole")

    def cut(self, last: bytes) -> None:
        self.ended.set_result("broken off")


@pytest.mark.parametrize(
    ("changes_in", "expected"), [(0, "whole"), (1, "broken off"), (2, "broken off")]
)
def test_an_export_is_of_one_ownership(changes_in: int, expected: str) -> None:
    """Other buckets of the same number, before or in the last part, do not make a whole body."""

    async def scenario() -> str:
        owned = [[(0, 8_191)]]
        written = Written()
        asked = ask("get_user", country="Sweden")
        asked.is_export, asked.limit = True, 0
        parts = OwnParts(
            asked,
            executor=cast(Any, TwoParts(owned, changes_in)),
            whereabouts=lambda _: (Place(None, 0, is_local=True), Shards(1, 1, 0.5)),
            owned=lambda: owned[0],
        )

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, LinesOutcome):
                outcome.export.begin(cast(Any, written))
            else:
                written.ended.set_result("broken off")  # before a row left: a plain problem

        Exports().begin(asked, parts, done)
        return str(await asyncio.wait_for(written.ended, 20))

    assert expected == asyncio.run(scenario())
