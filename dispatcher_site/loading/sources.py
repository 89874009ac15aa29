"""The files of a load: opened, recognised, named by what is in them.

A file's identity is its size, its time of change and its first and last megabyte, not its path: a
file that was moved goes on where it stopped, one that was edited is another load.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from dispatcher_site.loading.blocks import Place
from dispatcher_site.loading.columns import LoadShape, Mapping, map_header
from dispatcher_site.loading.errors import NoSuchThing, WrongInput
from dispatcher_site.loading.records import BadRecord, fields_of
from dispatcher_site.loading.rows import CsvReader, JsonReader, RowReader

Format = Literal["csv", "jsonl"]

STDIN = "-"
SAMPLE_BYTES = 1_048_576
HEADER_BYTES_MAX = 65_536
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True, slots=True)
class Source:
    """One input of a load, not opened yet."""

    name: str  # a path, or "-"
    format: Format
    gzipped: bool
    size: int | None  # bytes as stored; None where it cannot be known
    identity: str | None  # None for a pipe, which cannot be read again

    @property
    def can_reread(self) -> bool:
        """Can a later attempt find the same bytes here?"""
        return self.identity is not None


@dataclass(frozen=True, slots=True)
class Opened:
    """A source being read."""

    stream: IO[bytes]
    stored: IO[bytes]  # the stream below a decompressor, for progress

    def position(self) -> int:
        """Return how many stored bytes were read."""
        try:
            return self.stored.tell()
        except OSError:
            return 0


def source_of(name: str, *, format: Format | None = None) -> Source:
    """Return what a name on the command line stands for.

    Raises:
        NoSuchThing: There is no such file.
        WrongInput: Its format is neither given nor to be seen from the name.
    """
    gzipped = name.endswith(".gz")
    known = format or _SUFFIXES.get(Path(name.removesuffix(".gz")).suffix)
    if known is None:
        raise WrongInput(f"{name}: say --format csv or --format jsonl")
    if name == STDIN:
        return Source(name, known, gzipped=False, size=None, identity=None)
    path = Path(name)
    if not path.is_file():
        if path.exists() and not path.is_dir():
            return Source(name, known, gzipped, size=None, identity=None)
        raise NoSuchThing(f"{name}: there is no such file")
    facts = path.stat()
    return Source(name, known, gzipped, facts.st_size, _identity(path, facts))


def _identity(path: Path, facts: os.stat_result) -> str:
    digest = hashlib.sha256(f"{facts.st_size} {facts.st_mtime_ns} ".encode())
    with path.open("rb") as stream:
        digest.update(stream.read(SAMPLE_BYTES))
        stream.seek(max(0, facts.st_size - SAMPLE_BYTES))
        digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


@contextmanager
def opened(source: Source) -> Iterator[Opened]:
    """Open a source for reading."""
    if source.name == STDIN:
        yield Opened(sys.stdin.buffer, sys.stdin.buffer)
        return
    with Path(source.name).open("rb") as stored:
        if not source.gzipped:
            yield Opened(stored, stored)
            return
        with gzip.GzipFile(fileobj=stored, mode="rb") as stream:
            yield Opened(cast("IO[bytes]", stream), stored)


def begin(stream: IO[bytes], source: Source, shape: LoadShape) -> tuple[RowReader, Place]:
    """Read what comes before the rows and return how to read them, and where they begin.

    Raises:
        WrongInput: The header does not fit the model, or there is none.
    """
    if source.format == "jsonl":
        return JsonReader(_whole(shape)), Place(0, 0, 1)
    line = stream.readline(HEADER_BYTES_MAX)
    text = line.removeprefix(BYTE_ORDER_MARK).removesuffix(b"\n").removesuffix(b"\r")
    try:
        names = [(name or b"").decode() for name in fields_of(text)]
    except (BadRecord, UnicodeDecodeError) as fault:
        raise WrongInput(f"{source.name}: the header is not CSV: {fault}") from None
    if not text:
        raise WrongInput(f"{source.name} is empty: its first line must name the columns")
    return CsvReader(map_header(shape, names)), Place(0, len(line), 2)


def _whole(shape: LoadShape) -> Mapping:
    return map_header(shape, [column.name for column in shape.columns])


def go_to(stream: IO[bytes], source: Source, *, now: int, offset: int) -> None:
    """Move a stream forward to an offset, by seeking where that is possible."""
    if offset == now:
        return
    if source.can_reread:
        stream.seek(offset)
        return
    while now < offset:
        now += len(stream.read(min(SAMPLE_BYTES, offset - now))) or offset
