"""``manage.py load``: put files into the cluster."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from dispatcher_site.loading.columns import shape_of
from dispatcher_site.loading.errors import LoadStopped, NoSuchThing, PartlyDone
from dispatcher_site.loading.journal import Totals
from dispatcher_site.loading.loads import FileLoad, LoadOptions
from dispatcher_site.loading.progress import meter, rate_text
from dispatcher_site.loading.registered import RegisteredCluster
from dispatcher_site.loading.rejects import REJECTS_MAX, Rejects
from dispatcher_site.loading.sending import PATIENCE_S
from dispatcher_site.loading.sources import Source, source_of
from modeldefs.kit.apps import current_catalog

INTERRUPTED = 130


def model_named(name: str) -> Any:
    """Return a model of the definitions.

    Raises:
        NoSuchThing: There is none of this name; the message lists those there are.
    """
    try:
        return current_catalog().model(name)
    except KeyError as unknown:
        raise NoSuchThing(str(unknown.args[0])) from None


class Command(BaseCommand):
    """Load rows into the cluster, from files or a pipe."""

    help = (
        "Load rows of a MODEL from .csv or .jsonl files (also .gz, or - for stdin). "
        "Run the same command again after an interruption: it goes on where it stopped."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("model", metavar="MODEL")
        parser.add_argument("files", metavar="FILE", nargs="+")
        parser.add_argument("--format", choices=("csv", "jsonl"), help="default: by the name")
        parser.add_argument(
            "--on-conflict",
            choices=("error", "skip", "update"),
            default="error",
            help="what to do with rows whose key is there already (default: stop)",
        )
        parser.add_argument("--rejects", help="file for lines that cannot be loaded")
        parser.add_argument("--max-rejects", type=int, default=REJECTS_MAX)
        parser.add_argument(
            "--patience", type=float, default=PATIENCE_S, help="seconds a shard may be away"
        )
        parser.add_argument("--progress", action="store_true", help="also where no terminal is")
        parser.add_argument("--json", action="store_true", help="the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Load the files one after the other."""
        began_s = time.monotonic()
        totals = Totals()
        try:
            rejects = self._load(totals, **options)
        except LoadStopped as stopped:
            if totals.rows:
                self._report(totals, began_s, **options)
            raise CommandError(str(stopped), returncode=stopped.exit_code) from None
        except KeyboardInterrupt:
            self._report(totals, began_s, **options)
            raise CommandError(
                "interrupted; run the same command again to go on", returncode=INTERRUPTED
            ) from None
        self._report(totals, began_s, **options)
        if totals.rejected:
            raise CommandError(
                f"{totals.rejected:,} lines are rejected, see {rejects.path}",
                returncode=PartlyDone.exit_code,
            )

    def _load(self, totals: Totals, **options: Any) -> Rejects:
        shape = shape_of(model_named(options["model"]))
        sources = [source_of(name, format=options["format"]) for name in options["files"]]
        how = LoadOptions(on_conflict=options["on_conflict"], patience_s=options["patience"])
        folder = Path(settings.ENVIRONMENT.run_dir) / "loads"
        cluster = RegisteredCluster()
        loads = [
            FileLoad(source, shape=shape, cluster=cluster, options=how, folder=folder)
            for source in sources
        ]
        path = Path(options["rejects"] or f"{shape.model}.rejects.jsonl")
        resumed = any(load.journal.is_resumed for load in loads)
        rejects = Rejects(path, keep=resumed, rejects_max=options["max_rejects"])
        try:
            for source, load in zip(sources, loads, strict=True):
                self._load_one(source, load, rejects, totals, forced=options["progress"])
        finally:
            rejects.close()
        return rejects

    def _load_one(
        self, source: Source, load: FileLoad, rejects: Rejects, totals: Totals, *, forced: bool
    ) -> None:
        if load.journal.is_resumed:
            begun = load.journal.state.done
            line = begun.line if begun else 1
            self.stderr.write(f"{source.name}: going on at line {line:,}", self.style.NOTICE)
        try:
            with meter(sys.stderr, name=source.name, size=source.size, forced=forced) as show:
                load.run(rejects, lambda position, so_far: show(position, so_far.rows))
        finally:
            totals.add(load.journal.state.totals)

    def _report(self, totals: Totals, began_s: float, **options: Any) -> None:
        seconds = time.monotonic() - began_s
        if options["json"]:
            document = {
                "model": options["model"],
                "loaded": totals.loaded,
                "skipped": totals.skipped,
                "updated": totals.updated,
                "rejected": totals.rejected,
                "replayed_parts": totals.replayed_parts,
                "seconds": round(seconds, 3),
            }
            self.stdout.write(json.dumps(document))
            return
        words = [f"{totals.loaded:,} rows loaded"]
        others = ("skipped", "updated", "rejected")
        words += [f"{getattr(totals, name):,} {name}" for name in others if getattr(totals, name)]
        if totals.replayed_parts:
            words.append(f"{totals.replayed_parts:,} parts were there already")
        rate = rate_text(totals.rows, seconds)
        self.stdout.write(f"{options['model']}: {', '.join(words)} in {seconds:.1f} s ({rate})")
