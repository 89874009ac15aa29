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
from pathlib import Path

import django

from tests.benchmarks import ours
from tests.benchmarks.contenders import Contender, PgbenchContender
from tests.benchmarks.drivers import find_pgbench, find_wrk
from tests.benchmarks.figures import summarise
from tests.benchmarks.grounds import Grounds, forget_inserts, standing
from tests.benchmarks.report import Report, write_all
from tests.benchmarks.rounds import Pace, measure, say
from tests.benchmarks.workloads import HALF, ONE_SHARD, POINT, Workload
from tests.cluster.clusters import Cluster

NAMES = [workload.name for workload in ONE_SHARD]
QUICK = {"rounds": 2, "seconds": 2.0}
FULL = {"rounds": 5, "seconds": 3.0}


def options_from(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's wishes."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default="", help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 s")
    parser.add_argument("--out", type=Path, default=Path(".run/bench"))
    found = parser.parse_args(arguments)
    defaults = QUICK if found.quick else FULL
    found.rounds = found.rounds or int(defaults["rounds"])
    found.seconds = found.seconds or defaults["seconds"]
    found.only = [name for name in found.only.split(",") if name] or NAMES
    unknown = set(found.only) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return found


def one_shard(
    grounds: Grounds, cluster: Cluster, wanted: Sequence[Workload], pace: Pace, report: Report
) -> None:
    """Measure everything that one shard answers."""
    contenders = _contenders(grounds, cluster, report)
    peak: dict[str, float] = {}
    for workload in wanted:
        if workload is HALF and not peak:
            say("half: needs the peak rate of `point` in the same run")
            continue
        measured = measure(
            workload, contenders, pace, rate_of=peak.get if workload is HALF else _no_rate
        )
        report.add(measured)
        if workload is POINT:
            peak = {
                name: summarise(samples).rate / 2 for name, samples in measured.samples.items()
            }
        if workload.writes:
            forget_inserts(grounds.plain_dsn)
            ours.forget_our_inserts(grounds, cluster)
    report.memory |= ours.worker_memory(cluster)


def _no_rate(_: str) -> None:
    """Ask as fast as answers come."""


def _contenders(grounds: Grounds, cluster: Cluster, report: Report) -> list[Contender]:
    wrk = find_wrk()
    groups = ours.groups_of(grounds, cluster)
    found: list[Contender] = [
        ours.contender("dispatcher", cluster.url, cluster.key, groups, wrk),
        ours.contender("node", cluster.shard_urls[0], cluster.key, groups, wrk),
    ]
    pgbench = find_pgbench()
    if pgbench is None:
        report.note("pgbench was not found: there is no limit to compare with.")
    else:
        roots = {"postgres": grounds.postgres_roots()}
        found.insert(0, PgbenchContender("pgbench", pgbench, grounds.plain_dsn, roots))
    return found


def main() -> None:
    """Run what the command line asks for and write the report."""
    options = options_from()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dispatcher_site.settings")
    django.setup()
    pace = Pace(options.rounds, options.seconds)
    report = Report(rounds=pace.rounds, seconds=pace.seconds)
    report.note("Load: wrk." if find_wrk() else "Load: our own generator, as wrk is not there.")
    wanted = [workload for workload in ONE_SHARD if workload.name in options.only]
    with ExitStack() as stack:
        grounds = stack.enter_context(standing())
        cluster = stack.enter_context(ours.cluster_of(grounds))
        report.postgres = grounds.version()
        one_shard(grounds, cluster, wanted, pace, report)
    sys.stdout.write(write_all(report, options.out))


if __name__ == "__main__":
    main()
