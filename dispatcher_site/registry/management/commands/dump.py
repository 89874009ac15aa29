"""``manage.py dump``: write all rows of a model to a file."""

from __future__ import annotations

import gzip
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError

from dispatcher_site.loading.columns import shape_of
from dispatcher_site.loading.dumping import DumpOptions, dump_lines
from dispatcher_site.loading.errors import LoadStopped
from dispatcher_site.loading.progress import Meter, meter
from dispatcher_site.loading.registered import RegisteredCluster
from dispatcher_site.registry.management.commands.load import model_named


@contextmanager
def _packed(stored: IO[bytes], *, gzipped: bool) -> Iterator[IO[bytes]]:
    if not gzipped:
        yield stored
        return
    # No name and no time in it: the same rows give the same bytes.
    with gzip.GzipFile("", "wb", 6, stored, mtime=0) as stream:
        yield cast("IO[bytes]", stream)


@contextmanager
def _target(out: str, *, gzipped: bool) -> Iterator[IO[bytes]]:
    if out == "-":
        with _packed(sys.stdout.buffer, gzipped=gzipped) as stream:
            yield stream
        sys.stdout.buffer.flush()
        return
    path = Path(out)
    # Written aside and renamed: a file that is there is a whole dump.
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("wb") as stored, _packed(stored, gzipped=gzipped) as stream:
            yield stream
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.rename(path)


class Command(BaseCommand):
    """Dump all rows of a model; the inverse of load."""

    help = "Write all rows of a MODEL as CSV or JSON lines; `load` takes the file back."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("model", metavar="MODEL")
        parser.add_argument("-o", "--out", default="-", help="file to write to (default: stdout)")
        parser.add_argument("--format", choices=("csv", "jsonl"), default="csv")
        parser.add_argument("--gzip", action="store_true", help="also by a name that ends in .gz")
        parser.add_argument(
            "--merged", action="store_true", help="one order by primary key over all shards"
        )
        parser.add_argument("--progress", action="store_true", help="also where no terminal is")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the dump and say how many rows it has."""
        out = options["out"]
        gzipped = options["gzip"] or out.endswith(".gz")
        try:
            shape = shape_of(model_named(options["model"]))
            with (
                _target(out, gzipped=gzipped) as stream,
                meter(sys.stderr, name=out, size=None, forced=options["progress"]) as show,
            ):
                how = DumpOptions(format=options["format"], merged=options["merged"])
                rows = _write(stream, dump_lines(shape, RegisteredCluster(), how), show)
        except LoadStopped as stopped:
            raise CommandError(str(stopped), returncode=stopped.exit_code) from None
        except BrokenPipeError:
            sys.stderr.close()
            return
        if out != "-":
            self.stdout.write(f"{out}: {rows:,} rows")


def _write(stream: IO[bytes], pieces: Iterator[tuple[bytes, int]], show: Meter) -> int:
    rows = size = 0
    for piece, count in pieces:
        stream.write(piece)
        rows += count
        size += len(piece)
        show(size, rows)
    return rows
