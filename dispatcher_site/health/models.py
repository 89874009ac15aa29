"""What each shard said about itself, every five seconds, for a day."""

from __future__ import annotations

from django.db import models

from dispatcher_site.registry.models import Shard


class HealthSample(models.Model):
    """One answer, or missing answer, of a shard's node to `GET /_node/health`."""

    shard = models.ForeignKey(Shard, on_delete=models.CASCADE, related_name="samples")
    at = models.DateTimeField()
    healthy = models.BooleanField()
    code = models.CharField(max_length=40, blank=True, default="")
    took_ms = models.FloatField()
    facts = models.JSONField(default=dict)

    class Meta:
        ordering = ["-at"]
        indexes = [models.Index(fields=["shard", "-at"], name="samples_by_shard")]

    def __str__(self) -> str:
        return f"{self.shard_id} {self.at:%H:%M:%S}"


class EndpointMinute(models.Model):
    """What one endpoint did in one minute: in the fronts, or on one shard's node."""

    site = models.CharField(max_length=63)  # "front", or the shard's name
    endpoint = models.CharField(max_length=100)
    minute = models.DateTimeField()
    requests = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)  # 500 and above
    shards_asked = models.BigIntegerField(default=0)
    partials = models.BigIntegerField(default=0)
    rows = models.BigIntegerField(default=0)  # counted by nodes
    bytes_out = models.BigIntegerField(default=0)
    p50_ms = models.FloatField(default=0)
    p95_ms = models.FloatField(default=0)
    p99_ms = models.FloatField(default=0)
    buckets = models.JSONField(default=list)  # of meters.BOUNDS_S, so that minutes can be added

    class Meta:
        ordering = ["-minute", "site", "endpoint"]
        constraints = [
            models.UniqueConstraint(
                fields=["minute", "site", "endpoint"], name="one_row_per_endpoint_and_minute"
            )
        ]

    def __str__(self) -> str:
        return f"{self.minute:%H:%M} {self.site} {self.endpoint}"


class MeterSource(models.Model):
    """What of one folder of counts is in the minutes already."""

    source = models.CharField(max_length=80, primary_key=True)
    at = models.DateTimeField()
    totals = models.JSONField(default=dict)

    def __str__(self) -> str:
        return self.source
