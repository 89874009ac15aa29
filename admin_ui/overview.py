"""The facts of the overview: what the registry says of shards, map, jobs and keys, right now."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q
from django.utils import timezone

from dispatcher_site.registry.models import Endpoint, Job, Shard
from dispatcher_site.registry.services import shard_map
from dispatcher_site.trust.models import ApiKey
from modeldefs.kit.buckets import BUCKET_COUNT

MARKS = {"active": "●", "draining": "◐", "joining": "○", "down": "✕", "quarantined": "⚠"}
JOBS_SHOWN = 5


def overview() -> dict[str, Any]:
    """Return what the overview shows."""
    epoch = shard_map.current_epoch()
    owned: dict[str, int] = {}
    for one in shard_map.current_ranges(epoch):
        owned[one.shard] = owned.get(one.shard, 0) + one.last - one.first + 1
    shards: list[dict[str, Any]] = [
        {
            "shard": shard,
            "mark": MARKS.get(shard.state, "○"),
            "buckets": owned.get(shard.name, 0),
            "percent": round(100 * owned.get(shard.name, 0) / BUCKET_COUNT, 1),
            "url": node.url if (node := shard.nodes.filter(role="primary").first()) else "",
        }
        for shard in Shard.objects.exclude(state=Shard.State.REMOVED)
    ]
    live = Q(revoked_at__isnull=True) & (Q(expires_at=None) | Q(expires_at__gt=timezone.now()))
    return {
        "as_of": timezone.now(),
        "epoch": epoch,
        "shards": shards,
        "active": sum(row["shard"].state == Shard.State.ACTIVE for row in shards),
        "ownerless": BUCKET_COUNT - sum(owned.values()),
        "jobs": Job.objects.values("state").annotate(count=Count("pk")).order_by("state"),
        "newest_jobs": Job.objects.all()[:JOBS_SHOWN],
        "keys": ApiKey.objects.filter(live).count(),
        "endpoints": Endpoint.objects.filter(active=True).count(),
    }
