"""Last uses of keys: written beside the requests, in batches, and not lost by a failure."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from dispatcher_site.gateway.last_used import LastUsed, Uses

START = datetime(2026, 1, 1, tzinfo=UTC)


class Book:
    """What was written, and a clock."""

    def __init__(self) -> None:
        self.now = START
        self.pages: list[dict[str, tuple[datetime, str]]] = []
        self.is_shut = False
        self.last_used = LastUsed(write=self._write, clock=lambda: self.now)

    def _write(self, uses: Uses) -> None:
        if self.is_shut:
            raise OSError("shut")
        self.pages.append(dict(uses))

    def after(self, seconds: int, *kids: str) -> None:
        """Let keys be used, and some time later look what is due."""
        self.last_used.seen.update(dict.fromkeys(kids, "10.0.0.1"))
        self.now += timedelta(seconds=seconds)
        asyncio.run(self.last_used.flush())


def test_a_busy_key_is_written_once_a_minute() -> None:
    """All keys of a flush are one write; a key comes again after a minute, with its last use."""
    book = Book()
    book.after(5, "a", "b")
    for _ in range(11):
        book.after(5, "a")
    assert [{"a", "b"}] == [set(page) for page in book.pages]

    book.after(5)

    assert 2 == len(book.pages)
    assert {"a": (START + timedelta(seconds=60), "10.0.0.1")} == book.pages[1]


def test_nothing_used_is_nothing_written() -> None:
    """A quiet front does not touch the registry."""
    book = Book()
    book.after(5)

    assert [] == book.pages


def test_a_registry_that_is_down_loses_no_use() -> None:
    """What could not be written is written when it can be, with its own time."""
    book = Book()
    book.is_shut = True
    book.after(5, "a")
    book.after(5)
    book.is_shut = False
    book.after(5, "b")

    assert {"a": START + timedelta(seconds=5), "b": START + timedelta(seconds=15)} == {
        kid: at for kid, (at, _) in book.pages[0].items()
    }


def test_the_end_of_a_worker_writes_what_is_left() -> None:
    """A use of the last minute is not forgotten by a restart."""
    book = Book()
    book.after(5, "a")
    book.last_used.seen["a"] = "10.0.0.2"

    asyncio.run(book.last_used.stop())

    assert "10.0.0.2" == book.pages[-1]["a"][1]
