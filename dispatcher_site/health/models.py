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
