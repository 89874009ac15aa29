"""What the control API shows of each table, and what it accepts."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from dispatcher_site.health.models import EndpointMinute, HealthSample
from dispatcher_site.registry import models
from dispatcher_site.trust.models import ApiKey, AuditEntry
from modeldefs.wire.quotas import CONCURRENCY_MAX, RATE_MAX, WINDOW_S_MAX

KEY_KINDS = {"data": "spk_live_", "test": "spk_test_", "control": "spa_"}


class ShardDocument(serializers.ModelSerializer[models.Shard]):
    """A shard. Its keys are public ones."""

    class Meta:
        model = models.Shard
        exclude = ["id"]


class ShardNodeDocument(serializers.ModelSerializer[models.ShardNode]):
    """A node and where it listens."""

    shard = serializers.CharField(source="shard.name", read_only=True)
    url = serializers.CharField(read_only=True)

    class Meta:
        model = models.ShardNode
        fields = ["shard", "role", "host", "port", "url"]


class BucketRangeDocument(serializers.ModelSerializer[models.BucketRange]):
    """Buckets with one owner."""

    shard = serializers.CharField(source="shard.name", read_only=True)

    class Meta:
        model = models.BucketRange
        fields = ["first", "last", "shard", "since"]


class MapEpochDocument(serializers.ModelSerializer[models.MapEpoch]):
    """A shard map with its ranges."""

    ranges = BucketRangeDocument(many=True, read_only=True)

    class Meta:
        model = models.MapEpoch
        fields = ["epoch", "created", "reason", "actor", "ranges"]


class ModelVersionDocument(serializers.ModelSerializer[models.ModelVersion]):
    """A shape of a model."""

    model = serializers.CharField(source="model_id", read_only=True)

    class Meta:
        model = models.ModelVersion
        fields = [
            "model", "number", "schema_hash", "state", "since", "deprecated_at", "sunset",
            "notice",
        ]  # fmt: skip


class ModelDocument(serializers.ModelSerializer[models.ModelDefinition]):
    """A model and its versions."""

    versions = ModelVersionDocument(many=True, read_only=True)

    class Meta:
        model = models.ModelDefinition
        fields = ["name", "package", "shard_key", "reference", "head", "active", "versions"]


class ContractsField(serializers.DictField):
    """The hashes of an endpoint's contracts, by version."""

    def get_attribute(self, instance: models.Endpoint) -> dict[str, str]:
        """Return them from what the view has read for all endpoints at once."""
        known: dict[str, dict[str, str]] = self.context.get("contracts", {})
        return known.get(instance.name, {})


class EndpointDocument(serializers.ModelSerializer[models.Endpoint]):
    """An endpoint that clients call; its contracts' hashes by version."""

    model = serializers.CharField(source="model_id", read_only=True)
    contracts = ContractsField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = models.Endpoint
        fields = [
            "name", "number", "model", "kind", "classification", "methods", "doc", "bundle",
            "active", "contracts",
        ]  # fmt: skip


class KeyDocument(serializers.ModelSerializer[ApiKey]):
    """A key without its secret, which nobody has."""

    rotated_from = serializers.CharField(
        source="rotated_from.kid", default=None, read_only=True, allow_null=True
    )

    class Meta:
        model = ApiKey
        exclude = ["id", "digest", "pepper_v"]


class StepDocument(serializers.ModelSerializer[models.JobStep]):
    """A step of a job."""

    class Meta:
        model = models.JobStep
        exclude = ["id", "job"]


class JobDocument(serializers.ModelSerializer[models.Job]):
    """A job."""

    class Meta:
        model = models.Job
        exclude = ["lease_owner"]


class AuditDocument(serializers.ModelSerializer[AuditEntry]):
    """An audit entry."""

    class Meta:
        model = AuditEntry
        fields = "__all__"


class HealthDocument(serializers.ModelSerializer[HealthSample]):
    """A health sample."""

    shard = serializers.CharField(source="shard.name", read_only=True)

    class Meta:
        model = HealthSample
        exclude = ["id"]


class EndpointMinuteDocument(serializers.ModelSerializer[EndpointMinute]):
    """What an endpoint did in a minute."""

    class Meta:
        model = EndpointMinute
        exclude = ["id", "buckets"]


class ShownKey(KeyDocument):
    """A new key with its text, which is shown here and never again."""

    key = serializers.CharField(read_only=True)


class PlacedShard(ShardDocument):
    """A new shard, and the job that gives it its buckets; none where it needs none."""

    job = serializers.IntegerField(read_only=True, allow_null=True)


class ClusterHealth(serializers.Serializer[Any]):
    """Whether all shards are well, and the newest sample of each."""

    healthy = serializers.BooleanField(read_only=True)
    shards = HealthDocument(many=True, read_only=True)


class StrictInput(serializers.Serializer[Any]):
    """An input that refuses members it does not know, so that no typing error is ignored."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated members."""
        if isinstance(data, dict):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                known = ErrorDetail("no such member", code="unknown-parameter")
                raise serializers.ValidationError({name: [known] for name in unknown})
        return super().to_internal_value(data)


class LimitsInput(StrictInput):
    """Limits of a key: none where left out."""

    rate = serializers.IntegerField(min_value=1, max_value=RATE_MAX, required=False)
    window_s = serializers.IntegerField(min_value=1, max_value=WINDOW_S_MAX, required=False)
    burst = serializers.IntegerField(min_value=1, max_value=RATE_MAX, required=False)
    concurrency = serializers.IntegerField(min_value=1, max_value=CONCURRENCY_MAX, required=False)


class NewKey(LimitsInput):
    """What creating a key takes."""

    name = serializers.CharField(max_length=100, required=False, default="", allow_blank=True)
    owner = serializers.CharField(max_length=150)
    kind = serializers.ChoiceField(choices=list(KEY_KINDS), default="data")
    scopes = serializers.ListField(child=serializers.CharField(max_length=300), min_length=1)
    cidrs = serializers.ListField(child=serializers.CharField(max_length=50), default=list)
    row_filter = serializers.DictField(child=serializers.CharField(max_length=200), default=dict)
    expires_at = serializers.DateTimeField(required=False)
    pin = serializers.CharField(max_length=40, required=False)


class NewCapability(StrictInput):
    """What trading a key for a capability takes."""

    scopes = serializers.ListField(
        child=serializers.CharField(max_length=300), max_length=100, required=False
    )
    lifetime_s = serializers.IntegerField(min_value=1, required=False)


class Reason(StrictInput):
    """Why, for the audit log."""

    reason = serializers.CharField(max_length=500, required=False, default="", allow_blank=True)


class LimitedKey(LimitsInput, Reason):
    """What replacing the limits of a key takes."""


class PinnedKey(Reason):
    """What pinning a key takes."""

    pin = serializers.CharField(max_length=40)


class RotatedKey(Reason):
    """What rotating a key takes."""

    overlap_hours = serializers.IntegerField(min_value=0, max_value=24 * 90, default=24 * 7)


class NewShard(StrictInput):
    """What registering a shard takes."""

    name = serializers.SlugField(max_length=63, required=False)
    host = serializers.CharField(max_length=253)
    port = serializers.IntegerField(min_value=1, max_value=65535)
    token = serializers.CharField(max_length=200, required=False)


class NewJob(Reason):
    """What starting a job takes."""

    kind = serializers.ChoiceField(choices=["apply-definitions", "publish-map"])
