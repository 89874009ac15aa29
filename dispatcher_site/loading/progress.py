"""How far a load or a dump is, on stderr: a bar on a terminal, plain lines where asked for.

In a pipe nothing is written unless asked for. A terminal's bar is drawn by rich at most ten times
a second, so watching costs a load nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 2.0


class Meter(Protocol):
    """Where one file's progress is shown."""

    def __call__(self, position: int, rows: int) -> None:
        """Show how many bytes were read or written, and how many rows are dealt with."""


def rate_text(rows: int, seconds: float) -> str:
    """Return a rate as people read it."""
    return f"{rows / seconds:,.0f} rows/s" if seconds > 0 and rows else "- rows/s"


class _Lines:
    """Plain lines, now and then."""

    def __init__(self, stream: TextIO, name: str, size: int | None) -> None:
        self._stream, self._name, self._size = stream, name, size
        self._began_s = self._written_s = time.monotonic()
        self._first: int | None = None

    def __call__(self, position: int, rows: int) -> None:
        now_s = time.monotonic()
        self._first = rows if self._first is None else self._first
        if now_s - self._written_s < LINE_EVERY_S:
            return
        self._written_s = now_s
        share = f"{100 * position / self._size:.0f} %, " if self._size else ""
        rate = rate_text(rows - self._first, now_s - self._began_s)
        self._stream.write(f"{self._name}: {share}{rows:,} rows, {rate}\n")
        self._stream.flush()


def _silent(position: int, rows: int) -> None:
    """Show nothing."""


@contextmanager
def meter(stream: TextIO, *, name: str, size: int | None, forced: bool) -> Iterator[Meter]:
    """Show the progress of one file for as long as the block runs.

    Args:
        stream: Where to, usually stderr.
        name: What is shown before the bar.
        size: The bytes there will be in all; None shows no end.
        forced: Write plain lines even if the stream is no terminal.
    """
    if not stream.isatty():
        yield _Lines(stream, name, size) if forced else _silent
        return
    began_s = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %") if size else TextColumn(""),
        TextColumn("{task.fields[rows]:,} rows  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        task = progress.add_task(name, total=size, rows=0, rate="")
        first: list[int] = []

        def show(position: int, rows: int) -> None:
            first.append(rows) if not first else None
            rate = rate_text(rows - first[0], time.monotonic() - began_s)
            progress.update(task, completed=position, rows=rows, rate=rate)

        yield show
