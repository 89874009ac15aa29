"""The registry's tables: what should be. What is, only a shard's own Postgres can say.

Rows are written by ``services`` alone, one transaction and one audit row per change. The shard map
is append-only: an epoch's ranges are never edited, the next epoch has its own.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from modeldefs.kit.buckets import BUCKET_COUNT


class Counter(models.Model):
    """A number that rises with each change of its subject, so that readers can ask cheaply."""

    ROUTING = "routing"
    KEYRING = "keyring"

    name = models.TextField(primary_key=True)
    value = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name} {self.value}"


class Shard(models.Model):
    """The owner of some buckets, and what its node proved about itself when it enrolled."""

    class State(models.TextChoices):
        """What the dispatcher may do with the shard."""

        JOINING = "joining"
        ACTIVE = "active"
        DRAINING = "draining"
        QUARANTINED = "quarantined"
        DOWN = "down"
        REMOVED = "removed"

    name = models.SlugField(max_length=63, unique=True)
    alias = models.SlugField(max_length=63, unique=True)
    state = models.CharField(max_length=16, choices=State, default=State.JOINING)
    state_reason = models.TextField(blank=True, default="")
    public_key = models.TextField()
    fingerprint = models.CharField(max_length=128)
    instance = models.UUIDField()
    system_identifier = models.TextField(blank=True, default="")
    bundle_seen = models.TextField(blank=True, default="")
    map_epoch_seen = models.BigIntegerField(default=0)
    keyring_generation_seen = models.BigIntegerField(default=0)
    checks_missed = models.PositiveIntegerField(default=0)
    last_seen = models.DateTimeField(null=True, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ShardNode(models.Model):
    """A process group that serves a shard, and where it listens."""

    class Role(models.TextChoices):
        """Whether the node takes writes."""

        PRIMARY = "primary"
        REPLICA = "replica"

    shard = models.ForeignKey(Shard, on_delete=models.PROTECT, related_name="nodes")
    role = models.CharField(max_length=8, choices=Role, default=Role.PRIMARY)
    host = models.CharField(max_length=253)
    port = models.PositiveIntegerField()

    class Meta:
        ordering = ["shard", "role", "host", "port"]
        constraints = [
            models.UniqueConstraint(fields=["host", "port"], name="one_node_per_address"),
            models.UniqueConstraint(
                fields=["shard"], condition=Q(role="primary"), name="one_primary_per_shard"
            ),
            models.CheckConstraint(
                condition=Q(port__gte=1) & Q(port__lte=65535), name="node_port_is_a_port"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.shard}/{self.role}"

    @property
    def url(self) -> str:
        """Return the node's base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class MapEpoch(models.Model):
    """One shard map: complete, immutable, numbered."""

    epoch = models.BigIntegerField(primary_key=True)
    created = models.DateTimeField(auto_now_add=True)
    reason = models.TextField(blank=True, default="")
    actor = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["-epoch"]

    def __str__(self) -> str:
        return f"epoch {self.epoch}"


class BucketRange(models.Model):
    """Contiguous buckets with one owner, as of one epoch."""

    epoch = models.ForeignKey(MapEpoch, on_delete=models.PROTECT, related_name="ranges")
    first = models.PositiveIntegerField()
    last = models.PositiveIntegerField()
    shard = models.ForeignKey(Shard, on_delete=models.PROTECT, related_name="ranges")
    since = models.BigIntegerField(help_text="The epoch that gave these buckets to this shard.")

    class Meta:
        ordering = ["-epoch", "first"]
        constraints = [
            models.UniqueConstraint(fields=["epoch", "first"], name="one_range_per_first_bucket"),
            models.CheckConstraint(
                condition=Q(first__lte=F("last")) & Q(last__lt=BUCKET_COUNT),
                name="range_lies_in_the_keyspace",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


class ModelDefinition(models.Model):
    """A model that the definitions declare."""

    name = models.CharField(max_length=100, primary_key=True)
    package = models.TextField()
    shard_key = models.TextField(blank=True, default="")
    reference = models.BooleanField(default=False)
    head = models.PositiveIntegerField(default=1)
    active = models.BooleanField(default=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ModelVersion(models.Model):
    """A shape of a model."""

    class State(models.TextChoices):
        """What clients are told of it: ``modeldefs.wire.versions``."""

        LIVE = "live"
        DEPRECATED = "deprecated"
        RETIRED = "retired"

    model = models.ForeignKey(ModelDefinition, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    schema_hash = models.CharField(max_length=64)
    state = models.CharField(max_length=16, choices=State, default=State.LIVE)
    since = models.DateTimeField(default=timezone.now, help_text="When it became the newest.")
    deprecated_at = models.DateTimeField(null=True, blank=True)
    sunset = models.DateTimeField(null=True, blank=True, help_text="When it is to be retired.")
    notice = models.TextField(blank=True, default="", help_text="Where people read about that.")

    class Meta:
        ordering = ["model", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["model", "number"], name="one_row_per_model_version")
        ]

    def __str__(self) -> str:
        return f"{self.model_id}@{self.number}"


class VersionUse(models.Model):
    """When a key last got an answer in an older version of a model."""

    kid = models.CharField(max_length=10)
    model = models.CharField(max_length=100)
    number = models.PositiveIntegerField()
    last_used_at = models.DateTimeField()

    class Meta:
        ordering = ["model", "number", "-last_used_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["model", "number", "kid"], name="one_row_per_key_and_version"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kid} {self.model}@{self.number}"


class Contract(models.Model):
    """What an endpoint promised in one version, known by its hash; kept when it changes."""

    hash = models.CharField(max_length=32, primary_key=True)
    endpoint = models.CharField(max_length=100)
    version = models.PositiveIntegerField()
    document = models.JSONField()
    breaks = models.JSONField(
        default=list, blank=True, help_text="What today's contract breaks of it."
    )
    is_current = models.BooleanField(default=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["endpoint", "-version", "-created"]
        constraints = [
            models.UniqueConstraint(
                fields=["endpoint", "version"],
                condition=Q(is_current=True),
                name="one_current_contract_per_endpoint_version",
            )
        ]

    def __str__(self) -> str:
        return f"{self.endpoint}@{self.version} {self.hash}"


class Endpoint(models.Model):
    """A typed function that clients call."""

    name = models.CharField(max_length=100, primary_key=True)
    number = models.PositiveIntegerField()
    model = models.ForeignKey(ModelDefinition, on_delete=models.PROTECT, related_name="endpoints")
    kind = models.CharField(max_length=16)
    classification = models.JSONField(default=dict, blank=True)
    methods = models.JSONField(default=list)
    doc = models.TextField(blank=True, default="")
    bundle = models.CharField(max_length=64)
    active = models.BooleanField(default=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Job(models.Model):
    """Work that outlives its process: whoever holds the lease carries it on."""

    class State(models.TextChoices):
        """See ``jobs.states`` for what follows what."""

        PLANNED = "planned"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    kind = models.CharField(max_length=40)
    state = models.CharField(max_length=16, choices=State, default=State.PLANNED)
    payload = models.JSONField(default=dict, blank=True)
    progress = models.BigIntegerField(default=0)
    total = models.BigIntegerField(default=0)
    error = models.TextField(blank=True, default="")
    log = models.TextField(blank=True, default="")
    cancel_requested = models.BooleanField(default=False)
    lease_owner = models.TextField(blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    run_after = models.DateTimeField(null=True, blank=True)
    created_by = models.TextField(blank=True, default="")
    created = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["lease_until"],
                condition=Q(state__in=["planned", "running"]),
                name="jobs_to_carry_on",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} #{self.pk}"


class JobStep(models.Model):
    """One part of a job; it may be run again after a crash and must then change nothing twice."""

    class State(models.TextChoices):
        """Whether the step still has to run."""

        PENDING = "pending"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="steps")
    position = models.PositiveIntegerField()
    name = models.CharField(max_length=200)
    shard = models.CharField(max_length=63, blank=True, default="")
    state = models.CharField(max_length=16, choices=State, default=State.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    detail = models.JSONField(default=dict, blank=True)
    error = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["job", "position"]
        constraints = [
            models.UniqueConstraint(fields=["job", "position"], name="one_step_per_position")
        ]

    def __str__(self) -> str:
        return self.name


class OutboxMessage(models.Model):
    """A task to send once the transaction that wrote this row is committed."""

    task = models.CharField(max_length=100)
    payload = models.JSONField(default=dict)
    created = models.DateTimeField(auto_now_add=True)
    sent = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(fields=["id"], condition=Q(sent__isnull=True), name="outbox_to_send")
        ]

    def __str__(self) -> str:
        return f"{self.task} #{self.pk}"
