"""The registry's tables in the admin: looked at here, changed by the services alone.

Every page is read-only. What may be done is a button or a form of its own that calls a service, so
that there is no change without its audit entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from admin_ui.acting import actor_of
from dispatcher_site.health.models import HealthSample
from dispatcher_site.registry import models
from dispatcher_site.registry.services import jobs, keys
from dispatcher_site.trust.models import ApiKey, AuditEntry
from modeldefs.wire.problems import Problem
from modeldefs.wire.quotas import policy_text

if TYPE_CHECKING:  # generic for type checkers alone
    TableAdmin = admin.ModelAdmin[Any]
    JobRows = admin.TabularInline[models.JobStep, models.Job]
else:
    TableAdmin = admin.ModelAdmin
    JobRows = admin.TabularInline


class ReadOnlyAdmin(TableAdmin):
    """A table that people look at and nobody edits."""

    actions_on_top = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody adds rows by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits rows by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes rows by hand."""
        return False


def _each(request: HttpRequest, rows: QuerySet[Any], deed: Any, done: str) -> None:
    for row in rows:
        try:
            deed(row)
        except Problem as problem:
            messages.error(request, f"{row}: {problem}")
        else:
            messages.success(request, f"{row}: {done}")


@admin.register(models.Shard)
class ShardPage(ReadOnlyAdmin):
    """Who serves what."""

    list_display = ["name", "state", "map_epoch_seen", "last_seen", "fingerprint"]
    list_filter = ["state"]
    search_fields = ["name", "fingerprint"]
    change_list_template = "admin_ui/shards.html"


@admin.register(models.ShardNode)
class ShardNodePage(ReadOnlyAdmin):
    """Where the nodes listen."""

    list_display = ["shard", "role", "host", "port"]


@admin.register(models.MapEpoch)
class MapEpochPage(ReadOnlyAdmin):
    """Every shard map there was."""

    list_display = ["epoch", "created", "reason", "actor"]


@admin.register(models.BucketRange)
class BucketRangePage(ReadOnlyAdmin):
    """Which buckets are whose."""

    list_display = ["epoch", "first", "last", "shard", "since"]
    list_filter = ["shard"]


@admin.register(models.ModelDefinition)
class ModelDefinitionPage(ReadOnlyAdmin):
    """What is declared."""

    list_display = ["name", "package", "shard_key", "reference", "head", "active"]


@admin.register(models.ModelVersion)
class ModelVersionPage(ReadOnlyAdmin):
    """The shapes of the models."""

    list_display = ["model", "number", "state", "schema_hash"]


@admin.register(models.Endpoint)
class EndpointPage(ReadOnlyAdmin):
    """What clients can call."""

    list_display = ["name", "kind", "model", "methods", "active"]
    list_filter = ["kind", "model"]
    search_fields = ["name"]


class StepRows(JobRows):
    """The steps of a job, on the job's page."""

    model = models.JobStep
    fields = ("position", "name", "state", "attempts", "error")
    readonly_fields = ("position", "name", "state", "attempts", "error")
    can_delete = False
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody adds steps by hand."""
        return False


@admin.register(models.Job)
class JobPage(ReadOnlyAdmin):
    """What runs, what failed."""

    list_display = ["id", "kind", "state", "progress", "total", "created", "finished", "error"]
    list_filter = ["state", "kind"]
    inlines = [StepRows]
    actions = ["cancel", "retry"]

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Say whether this person may cancel and retry."""
        return request.user.has_perm("registry.change_job")

    @admin.action(description="Cancel the chosen jobs", permissions=["operate"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[models.Job]) -> None:
        """Ask each job to stop."""
        actor = actor_of(request)
        _each(
            request,
            queryset,
            lambda job: jobs.cancel_job(actor=actor, job_id=job.pk),
            "will stop after its current part",
        )

    @admin.action(description="Retry the chosen jobs", permissions=["operate"])
    def retry(self, request: HttpRequest, queryset: QuerySet[models.Job]) -> None:
        """Let each failed job go on."""
        actor = actor_of(request)
        _each(
            request,
            queryset,
            lambda job: jobs.retry_job(actor=actor, job_id=job.pk),
            "is planned again",
        )


@admin.register(models.OutboxMessage)
class OutboxPage(ReadOnlyAdmin):
    """Tasks asked for, and when they were sent."""

    list_display = ["id", "task", "created", "sent"]


@admin.register(ApiKey)
class ApiKeyPage(ReadOnlyAdmin):
    """Who may call."""

    list_display = [
        "kid", "kind", "name", "owner", "scopes", "row_filter", "limits", "last_used_at",
        "expires_at", "revoked_at",
    ]  # fmt: skip
    list_filter = ["kind", "environment"]
    search_fields = ["kid", "name", "owner"]
    exclude = ["digest", "pepper_v"]
    actions = ["revoke"]
    change_list_template = "admin_ui/keys.html"

    @admin.display
    def limits(self, key: ApiKey) -> str:
        """Link to what replaces the limits, named as they are."""
        known = keys.limits_of(key).checked()
        place = reverse("admin:key-limit", args=[key.kid])
        return format_html('<a href="{}">{}</a>', place, policy_text(known) if known else "none")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Say whether this person may revoke."""
        return request.user.has_perm("trust.change_apikey")

    @admin.action(description="Revoke the chosen keys", permissions=["operate"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        """Refuse each key everywhere within five seconds."""
        actor = actor_of(request)
        _each(
            request,
            queryset,
            lambda key: keys.revoke_key(actor=actor, kid=key.kid, reason="revoked in the admin"),
            "is revoked",
        )


@admin.register(AuditEntry)
class AuditPage(ReadOnlyAdmin):
    """Who did what."""

    list_display = ["id", "at", "actor", "via", "action", "target", "reason", "outcome"]
    list_filter = ["action", "actor_kind"]
    search_fields = ["actor", "target"]


@admin.register(HealthSample)
class HealthPage(ReadOnlyAdmin):
    """What the shards said about themselves."""

    list_display = ["at", "shard", "healthy", "code", "took_ms"]
    list_filter = ["healthy", "shard"]
