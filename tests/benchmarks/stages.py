"""The stages of a run: one shard beside pgbench and peers, scatter, more workers, loads.

Only what a stage compares runs while it measures: fifteen idle nodes would cost the others CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from tests.benchmarks import ours
from tests.benchmarks.contenders import Contender, PgbenchContender
from tests.benchmarks.drivers import find_pgbench, find_wrk
from tests.benchmarks.figures import summarise
from tests.benchmarks.grounds import Grounds, forget_inserts
from tests.benchmarks.report import Report
from tests.benchmarks.rounds import Pace, measure, say
from tests.benchmarks.workloads import HALF, POINT, Workload
from tests.cluster.clusters import Cluster

SCATTER_SIZES = (1, 2, 4, 8)
WORKERS = ((1, 1), (1, 2), (2, 1), (2, 2))


def one_shard(
    grounds: Grounds,
    wanted: Sequence[Workload],
    pace: Pace,
    report: Report,
    peers: Sequence[Contender] = (),
) -> None:
    """Measure everything that one shard answers, beside pgbench and the peers."""
    with ours.cluster_of(grounds) as cluster:
        contenders = [*_of_one_shard(grounds, cluster, report), *peers]
        for each in contenders:
            for line in each.notes:
                report.note(f"{each.name}: {line}")
        half: dict[str, float] = {}
        for workload in wanted:
            if workload is HALF and not half:
                report.note("`half` was left out: it needs the peak rates of `point`.")
                continue
            rate_of = half.get if workload is HALF else _no_rate
            measured = measure(workload, contenders, pace, rate_of=rate_of)
            report.add(measured)
            if workload is POINT:
                half = {
                    name: summarise(samples).rate / 2 for name, samples in measured.samples.items()
                }
            if workload.writes:
                forget_inserts(grounds.plain_dsn)
                ours.forget_our_inserts(grounds, cluster)
        report.memory |= ours.worker_memory(cluster)


def _no_rate(_: str) -> None:
    """Ask as fast as answers come."""


def _of_one_shard(grounds: Grounds, cluster: Cluster, report: Report) -> list[Contender]:
    wrk, pgbench = find_wrk(), find_pgbench()
    groups = ours.groups_of(grounds, cluster)
    found: list[Contender] = [
        ours.contender("dispatcher", cluster.url, cluster.key, groups, wrk),
        ours.contender("node", cluster.shard_urls[0], cluster.key, groups, wrk),
    ]
    if pgbench is None:
        report.note("pgbench was not found: there is no limit to compare with.")
        return found
    roots = {"postgres": grounds.postgres_roots()}
    return [PgbenchContender("pgbench", pgbench, grounds.plain_dsn, roots), *found]


def scatter(grounds: Grounds, wanted: Sequence[Workload], pace: Pace, report: Report) -> None:
    """Measure one list over more and more shards, which all lie on the one Postgres."""
    with ExitStack() as stack:
        contenders: list[Contender] = []
        for shards in SCATTER_SIZES:
            say(f"starting {shards} shards")
            cluster = stack.enter_context(ours.cluster_of(grounds, shards=shards))
            name = f"{shards} shard" + ("s" if shards > 1 else "")
            groups = ours.groups_of(grounds, cluster)
            contenders.append(ours.contender(name, cluster.url, cluster.key, groups, find_wrk()))
        for workload in wanted:
            report.add(measure(workload, contenders, pace, base="1 shard"))


def scale(grounds: Grounds, wanted: Sequence[Workload], pace: Pace, report: Report) -> None:
    """Measure one shard with more workers of the front and of the node."""
    with ExitStack() as stack:
        contenders: list[Contender] = []
        for front, node in WORKERS:
            say(f"starting {front} front and {node} node workers")
            cluster = stack.enter_context(
                ours.cluster_of(grounds, front_workers=front, node_workers=node)
            )
            groups = ours.groups_of(grounds, cluster)
            name = f"{front} front, {node} node"
            contenders.append(ours.contender(name, cluster.url, cluster.key, groups, find_wrk()))
        for workload in wanted:
            report.add(measure(workload, contenders, pace, base="1 front, 1 node"))
