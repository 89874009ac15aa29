"""Who may call, and who did what.

Keys are stored as a ``kid`` and a peppered digest, never as text. Audit entries form a hash chain;
a Postgres trigger refuses to change or delete one, whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import models
from django.db.models import Q
from django.utils import timezone


class ApiKey(models.Model):
    """One API key: what it may do, from where, and until when."""

    class Kind(models.TextChoices):
        """What the key opens."""

        DATA = "data"
        CONTROL = "control"

    kid = models.CharField(max_length=10, unique=True)
    name = models.CharField(max_length=100, blank=True, default="")
    prefix = models.CharField(max_length=12)
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.DATA)
    environment = models.CharField(max_length=8, default="live")
    digest = models.CharField(max_length=64)
    pepper_v = models.PositiveIntegerField(default=1)
    owner = models.CharField(max_length=150)
    scopes = models.JSONField(default=list)
    row_filter = models.JSONField(default=dict, blank=True)
    cidrs = models.JSONField(default=list, blank=True)
    # Units per window; 60 s where no window is said. What they mean: modeldefs.wire.quotas.
    rate = models.PositiveIntegerField(null=True, blank=True)
    window_s = models.PositiveIntegerField(null=True, blank=True)
    burst = models.PositiveIntegerField(null=True, blank=True)
    concurrency = models.PositiveIntegerField(null=True, blank=True)
    # What it means by no version: modeldefs.wire.versions. Nothing: the newest.
    pin = models.CharField(max_length=40, blank=True, default="")
    not_before = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    rotated_from = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="rotated_to"
    )
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_used_from = models.GenericIPAddressField(null=True, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["kind"], condition=Q(revoked_at__isnull=True), name="keys_that_live"
            )
        ]

    def __str__(self) -> str:
        return f"{self.prefix}{self.kid}"


def live_keys(kinds: Iterable[str]) -> models.QuerySet[ApiKey]:
    """Return the keys of some kinds that are neither revoked nor expired."""
    unexpired = Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now())
    return ApiKey.objects.filter(unexpired, kind__in=list(kinds), revoked_at__isnull=True)


class AuditEntry(models.Model):
    """One act: who did what to what, and what came of it. Never secrets, never documents."""

    id = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField()
    actor_kind = models.CharField(max_length=16)
    actor = models.TextField()
    via = models.CharField(max_length=16)
    ip = models.TextField(blank=True, default="")
    request_id = models.TextField(blank=True, default="")
    action = models.CharField(max_length=60)
    target = models.TextField(blank=True, default="")
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    reason = models.TextField(blank=True, default="")
    dry_run = models.BooleanField(default=False)
    outcome = models.CharField(max_length=16, default="done")
    prev_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"#{self.pk} {self.action}"


class Operation(models.Model):
    """No table: what people may do, in the words of the roles (``roles``)."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions = [
            ("view_ops", "See everything but documents"),
            ("view_data", "See documents"),
            ("ack_alert", "Acknowledge and mute alerts"),
            ("operate_shard", "Drain, quarantine and check shards; cancel and retry jobs"),
            ("move_bucket", "Move buckets"),
            ("run_rollout", "Run rollouts, but not contract"),
            ("manage_key", "Create, rotate, limit and revoke data keys"),
            ("approve_shard", "Enrol shards, release them from quarantine"),
            ("edit_rule", "Edit the rules of alerts"),
            ("destroy", "Remove shards, contract models, manage control keys"),
        ]
