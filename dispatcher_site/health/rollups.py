"""What each endpoint did in each minute, kept in the registry: for charts, and for looking back.

A front worker does it out of the way of requests, once a minute for all workers of its machine and
for the nodes, whichever comes first. No broker is asked, so none can lose it.

Invariant: every counted request is in exactly one minute. What was written down last is stored
beside the minutes, by the folder that counted it, in the same transaction; so a minute that could
not be written is in the next one, and two workers never write the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from dispatcher_site.health.models import EndpointMinute, MeterSource
from dispatcher_site.registry.clients import client_for
from dispatcher_site.registry.models import Shard
from modeldefs.wire.meter_files import MeterFolder
from modeldefs.wire.meters import OUTCOMES, UNKNOWN, Totals, buckets_of, quantile_s
from modeldefs.wire.problems import STANDARD_PROBLEMS

log = logging.getLogger("shardpoint.rollups")

KEPT = timedelta(days=14)
FRONT = "front"
_FOLDER = "@folder"  # no endpoint has this name
MINUTE = timedelta(minutes=1)
_FAILED = tuple(
    f"outcome:{code}" for code, kind in STANDARD_PROBLEMS.items() if kind.status >= 500
)
_OUTCOMES = tuple(f"outcome:{code}" for code in OUTCOMES)

Rows = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Read:
    """The totals of one folder: the front's on this machine, or a node's."""

    site: str
    source: str
    rows: Rows
    folder: str = ""  # which one it is, where the source may get another


def minute_of(at: datetime) -> datetime:
    """Return when the minute began."""
    return at.replace(second=0, microsecond=0)


def difference(now: Rows, before: Rows) -> Rows:
    """Return what was counted in between; a folder that was lost begins at nothing."""
    grown: Rows = {}
    for endpoint, row in now.items():
        known = before.get(endpoint, {})
        more = {
            column: number - known.get(column, 0) if number >= known.get(column, 0) else number
            for column, number in row.items()
        }
        kept = {column: number for column, number in more.items() if number}
        if kept:
            grown[endpoint] = kept
    return grown


def roll_up(read: Read, *, now: datetime) -> int:
    """Write down what a folder counted since the last time; return how many endpoints did.

    Nothing is done twice in one minute.
    """
    this = minute_of(now)
    with transaction.atomic():
        MeterSource.objects.get_or_create(source=read.source, defaults={"at": this - MINUTE})
        known = MeterSource.objects.select_for_update().get(source=read.source)
        if known.at >= this:
            return 0
        folder = {_FOLDER: {read.folder: 1}}
        is_other = known.totals.get(_FOLDER, folder[_FOLDER]) != folder[_FOLDER]
        grown = difference(read.rows, {} if is_other else known.totals)
        for endpoint, row in grown.items():
            _add(read.site, endpoint, this - MINUTE, row)
        known.totals, known.at = read.rows | folder, this
        known.save()
    return len(grown)


def _add(site: str, endpoint: str, minute: datetime, row: Mapping[str, int]) -> None:
    # Another machine's front may have written its part of the minute.
    EndpointMinute.objects.get_or_create(site=site, endpoint=endpoint, minute=minute)
    found = EndpointMinute.objects.select_for_update().get(
        site=site, endpoint=endpoint, minute=minute
    )
    more = buckets_of(row)
    buckets = [a + b for a, b in zip(found.buckets or [0] * len(more), more, strict=True)]
    found.requests += sum(row.get(column, 0) for column in _OUTCOMES)
    found.errors += sum(row.get(column, 0) for column in _FAILED)
    found.shards_asked += row.get("outcome:ok", 0) + row.get("legs_more", 0)
    found.partials += row.get("partials", 0)
    found.rows += row.get("rows", 0)
    found.bytes_out += row.get("bytes_out", 0)
    found.buckets = buckets
    for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        setattr(found, name, round(quantile_s(buckets, share) * 1_000, 3))
    found.save()


def roll_up_all(*, now: datetime | None = None) -> int:
    """Write down the minute that has ended, of the front here and of every node."""
    at = now or timezone.now()
    source, totals, _ = MeterFolder(settings.SHARDPOINT_METERS_DIR).read()
    written = roll_up(Read(FRONT, source, _named(totals, "requests")), now=at)
    for read in _of_nodes(at):
        try:
            written += roll_up(read, now=at)
        except Exception:
            # Odd numbers of one node stop neither the others' nor the pruning.
            log.warning("rollup.node-unwritten %s", read.site, exc_info=True)
    EndpointMinute.objects.filter(minute__lt=at - KEPT).delete()
    # A shard may be away for longer: without its last totals all it ever did were one minute's.
    names = Shard.objects.values_list("name", flat=True)
    kept = [f"shard {name}" for name in names]
    MeterSource.objects.filter(at__lt=at - KEPT).exclude(source__in=kept).delete()
    return written


def _of_nodes(now: datetime) -> Sequence[Read]:
    this = minute_of(now)
    done = set(MeterSource.objects.filter(at__gte=this).values_list("source", flat=True))
    reads = []
    for shard in Shard.objects.filter(state=Shard.State.ACTIVE):
        if not shard.nodes.exists() or f"shard {shard.name}" in done:
            continue
        try:
            told = client_for(shard).meters()
            rows = _named(told["totals"], "calls")
            folder = str(told["source"])
        except Exception:
            # It is down, or says nonsense: health says so elsewhere, and its counts are not lost.
            log.warning("rollup.node-unread %s", shard.name, exc_info=True)
            continue
        reads.append(Read(shard.name, f"shard {shard.name}", rows, folder))
    return reads


def _named(totals: Totals | Mapping[str, Any], table: str) -> Rows:
    rows = totals.get(table, {})
    return {name: row for name, row in rows.items() if row and name != UNKNOWN}
