"""The benchmark: `make bench`, or `python -m tests.benchmarks.run --quick --only point`.

Starts everything itself, measures in interleaved rounds, and writes `bench.md`, `bench.json` and
`bench.svg` into a folder. Nothing is asserted; docs/benchmarks.md has the method.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import django
import psutil

from tests.benchmarks import stages
from tests.benchmarks.checks import checks_elsewhere
from tests.benchmarks.drivers import find_wrk
from tests.benchmarks.export import measure_export
from tests.benchmarks.grounds import standing
from tests.benchmarks.load import measure_load
from tests.benchmarks.peers.everybody import peers_running
from tests.benchmarks.peers.places import PeerPlaces
from tests.benchmarks.report import Report, write_all
from tests.benchmarks.rounds import Pace, say
from tests.benchmarks.workloads import (
    ALL,
    CHECKS,
    EXPORT,
    LOAD,
    ONE_SHARD,
    SCALES,
    SCATTERS,
    Workload,
)

QUICK_ROUNDS, QUICK_SECONDS = 2, 2.0
FULL_ROUNDS, FULL_SECONDS = 5, 3.0
LOAD_ROUNDS_MAX = 3
LOAD_SHARDS = 4


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    only: tuple[str, ...]
    rounds: int
    seconds: float
    out: Path
    peers: bool
    peers_folder: Path

    def wanted(self, workloads: Sequence[Workload]) -> list[Workload]:
        """Return those that are asked for."""
        return [workload for workload in workloads if workload.name in self.only]


def options_from(arguments: Sequence[str] | None = None) -> Options:
    """Return the command line's wishes."""
    names = [workload.name for workload in ALL]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default=",".join(names), help=f"some of {','.join(names)}")
    parser.add_argument("--rounds", type=int, help=f"{FULL_ROUNDS} unless --quick")
    parser.add_argument("--seconds", type=float, help=f"of a stretch; {FULL_SECONDS:g}")
    quick = f"{QUICK_ROUNDS} rounds of {QUICK_SECONDS:g} s"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", type=Path, default=Path(".run/bench"), help="folder to write to")
    parser.add_argument("--peers", action="store_true", help="measure other systems too")
    kept = Path(os.environ.get("RUN_DIR") or ".run") / "peers"
    parser.add_argument("--peers-folder", type=Path, default=kept, help="where they are installed")
    found = parser.parse_args(arguments)
    only = tuple(name for name in found.only.split(",") if name)
    if unknown := sorted(set(only) - set(names)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(names)}")
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if found.quick else (FULL_ROUNDS, FULL_SECONDS)
    return Options(
        only,
        found.rounds or rounds,
        found.seconds or seconds,
        found.out,
        found.peers,
        found.peers_folder.absolute(),
    )


def run(options: Options) -> Report:
    """Run the stages that are asked for."""
    pace = Pace(options.rounds, options.seconds)
    report = Report(rounds=pace.rounds, seconds=pace.seconds, cores=psutil.cpu_count() or 0)
    report.note(
        "Load by `wrk` with one thread; by our own generator at 1 connection and at a fixed rate."
        if find_wrk()
        else "Load by our own generator, which takes more CPU than `wrk`: that is not installed."
    )
    with ExitStack() as stack:
        if set(options.only) - {CHECKS.name}:
            say("starting Postgres")
            grounds = stack.enter_context(standing())
            report.postgres = grounds.version()
            if wanted := options.wanted(ONE_SHARD):
                with ExitStack() as others:
                    places = PeerPlaces(options.peers_folder)
                    peers = (
                        others.enter_context(peers_running(grounds, places, report.note))
                        if options.peers
                        else []
                    )
                    stages.one_shard(grounds, wanted, pace, report, peers)
            if wanted := options.wanted(SCATTERS):
                stages.scatter(grounds, wanted, pace, report)
            if wanted := options.wanted(SCALES):
                stages.scale(grounds, wanted, pace, report)
            if options.wanted([LOAD]):
                rounds = min(pace.rounds, LOAD_ROUNDS_MAX)
                report.add(measure_load(grounds, rounds=rounds, shards=LOAD_SHARDS))
            if options.wanted([EXPORT]):
                report.add(measure_export(grounds, rounds=pace.rounds, shards=LOAD_SHARDS))
        if options.wanted([CHECKS]):
            report.checks = checks_elsewhere()
    return report


def main() -> None:
    """Run what the command line asks for and write the report."""
    options = options_from()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dispatcher_site.settings")
    django.setup()
    sys.stdout.write(write_all(run(options), options.out))


if __name__ == "__main__":
    main()
