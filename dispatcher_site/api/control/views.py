"""The resources of the control API. Reading shows tables; writing calls the services."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.http import Http404
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from dispatcher_site.api.control import documents
from dispatcher_site.api.control.authentication import actor_of
from dispatcher_site.health.models import EndpointMinute, HealthSample
from dispatcher_site.registry import models
from dispatcher_site.registry.services import jobs, keys, shard_map, shards
from dispatcher_site.trust.models import ApiKey, AuditEntry


def _checked(form: type[documents.StrictInput], request: Request) -> dict[str, Any]:
    given = form(data=request.data)
    given.is_valid(raise_exception=True)
    return dict(given.validated_data)


def _limits(given: dict[str, Any]) -> keys.Limits:
    """Take the limits out of what was given."""
    names = ("rate", "window_s", "burst", "concurrency")
    return keys.Limits(**{name: given.pop(name, None) for name in names})


class ReadOnly(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Any]):
    """A resource that can be listed and looked at."""

    resource = ""


class Shards(ReadOnly):
    """Who serves what."""

    resource = "shards"
    queryset = models.Shard.objects.all()
    serializer_class = documents.ShardDocument
    lookup_field = "name"
    lookup_value_regex = "[A-Za-z0-9_-]+"

    def create(self, request: Request) -> Response:
        """Enrol a node and place it: `{"host", "port", "name"?, "token"?}`."""
        given = _checked(documents.NewShard, request)
        actor = actor_of(request)
        shard, enrolled = shards.register_shard(
            actor=actor,
            host=given["host"],
            port=given["port"],
            name=given.get("name"),
            token=given.get("token"),
        )
        job = shards.place_shards(actor=actor, hold_rows=enrolled.rows > 0)
        document = {**documents.ShardDocument(shard).data, "job": job.pk if job else None}
        return Response(document, status=201)

    @action(detail=True, methods=["post"])
    def quarantine(self, request: Request, name: str) -> Response:
        """Stop trusting the shard: `{"reason"}`."""
        reason = _checked(documents.Reason, request)["reason"]
        shard = shards.quarantine_shard(actor=actor_of(request), name=name, reason=reason)
        return Response(documents.ShardDocument(shard).data)

    @action(detail=True, methods=["post"])
    def release(self, request: Request, name: str) -> Response:
        """Trust the shard again: `{"reason"}`."""
        reason = _checked(documents.Reason, request)["reason"]
        shard = shards.release_shard(actor=actor_of(request), name=name, reason=reason)
        return Response(documents.ShardDocument(shard).data)


class Nodes(ReadOnly):
    """Where the shards' nodes listen."""

    resource = "nodes"
    queryset = models.ShardNode.objects.select_related("shard")
    serializer_class = documents.ShardNodeDocument


class Maps(ReadOnly):
    """Every shard map there was; `map/current/` is the newest."""

    resource = "map"
    queryset = models.MapEpoch.objects.prefetch_related("ranges__shard")
    serializer_class = documents.MapEpochDocument
    lookup_value_regex = "[0-9]{1,18}|current"

    def get_object(self) -> Any:
        """Return the map of an epoch, or the newest."""
        number = self.kwargs["pk"]
        if number == "current":
            number = shard_map.current_epoch()
        found = self.get_queryset().filter(epoch=int(number)).first()
        if found is None:
            raise Http404
        return found


class Models(ReadOnly):
    """What is declared."""

    resource = "models"
    queryset = models.ModelDefinition.objects.prefetch_related("versions")
    serializer_class = documents.ModelDocument


class Versions(ReadOnly):
    """The shapes of the models."""

    resource = "versions"
    queryset = models.ModelVersion.objects.all()
    serializer_class = documents.ModelVersionDocument


class Endpoints(ReadOnly):
    """What clients can call."""

    resource = "endpoints"
    queryset = models.Endpoint.objects.all()
    serializer_class = documents.EndpointDocument


class Keys(ReadOnly):
    """Who may call."""

    resource = "keys"
    queryset = ApiKey.objects.select_related("rotated_from")
    serializer_class = documents.KeyDocument
    lookup_field = "kid"

    def _shown_once(self, created: keys.CreatedKey) -> Response:
        document = {**documents.KeyDocument(created.key).data, "key": created.text}
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return Response(document, status=201, headers=headers)

    def create(self, request: Request) -> Response:
        """Create a key, shown in this answer and never again."""
        given = _checked(documents.NewKey, request)
        prefix = documents.KEY_KINDS[given.pop("kind")]
        limits = _limits(given)
        return self._shown_once(
            keys.create_key(actor=actor_of(request), prefix=prefix, limits=limits, **given)
        )

    @action(detail=True, methods=["post"])
    def limit(self, request: Request, kid: str) -> Response:
        """Replace all limits: `{"rate"?, "window_s"?, "burst"?, "concurrency"?, "reason"?}`."""
        given = _checked(documents.LimitedKey, request)
        limits = _limits(given)
        key = keys.limit_key(
            actor=actor_of(request), kid=kid, limits=limits, reason=given["reason"]
        )
        return Response(documents.KeyDocument(key).data)

    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, kid: str) -> Response:
        """Create a successor; the old key lives on for `overlap_hours`."""
        given = _checked(documents.RotatedKey, request)
        created = keys.rotate_key(
            actor=actor_of(request),
            kid=kid,
            overlap=timedelta(hours=given["overlap_hours"]),
            reason=given["reason"],
        )
        return self._shown_once(created)

    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, kid: str) -> Response:
        """Refuse the key everywhere within five seconds."""
        reason = _checked(documents.Reason, request)["reason"]
        key = keys.revoke_key(actor=actor_of(request), kid=kid, reason=reason)
        return Response(documents.KeyDocument(key).data)


class Jobs(ReadOnly):
    """What runs, what failed."""

    resource = "jobs"
    queryset = models.Job.objects.all()
    serializer_class = documents.JobDocument
    lookup_value_regex = "[0-9]{1,18}"

    def create(self, request: Request) -> Response:
        """Start a job: `{"kind": "apply-definitions" | "publish-map"}`."""
        given = _checked(documents.NewJob, request)
        job = jobs.create_job(
            actor=actor_of(request), kind=given["kind"], payload={}, reason=given["reason"]
        )
        return Response(documents.JobDocument(job).data, status=201)

    @action(detail=True)
    def steps(self, request: Request, pk: str) -> Response:
        """List the steps of a job."""
        job = jobs.get_job(job_id=int(pk))
        return Response(documents.StepDocument(job.steps.all(), many=True).data)

    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Ask the job to stop."""
        reason = _checked(documents.Reason, request)["reason"]
        job = jobs.cancel_job(actor=actor_of(request), job_id=int(pk), reason=reason)
        return Response(documents.JobDocument(job).data)

    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """Let a failed job go on."""
        reason = _checked(documents.Reason, request)["reason"]
        job = jobs.retry_job(actor=actor_of(request), job_id=int(pk), reason=reason)
        return Response(documents.JobDocument(job).data)


class Audit(ReadOnly):
    """Who did what."""

    resource = "audit"
    queryset = AuditEntry.objects.all()
    serializer_class = documents.AuditDocument
    lookup_value_regex = "[0-9]{1,18}"


class Metrics(mixins.ListModelMixin, viewsets.GenericViewSet[Any]):
    """What each endpoint did in each minute, newest first: `?endpoint=`, `?site=`."""

    resource = "metrics"
    queryset = EndpointMinute.objects.all()
    serializer_class = documents.EndpointMinuteDocument

    def get_queryset(self) -> QuerySet[EndpointMinute]:
        """Return the minutes that are asked for."""
        found: QuerySet[EndpointMinute] = super().get_queryset()
        for name in ("endpoint", "site"):
            wanted = self.request.query_params.get(name)
            if wanted is not None:
                found = found.filter(**{name: wanted})
        return found


class Health(APIView):
    """The newest sample of every shard."""

    resource = "health"

    def get(self, request: Request) -> Response:
        """Return one sample per shard, and whether all are well."""
        newest: QuerySet[HealthSample] = HealthSample.objects.select_related("shard")
        samples = newest.order_by("shard_id", "-at").distinct("shard_id")
        found = documents.HealthDocument(samples, many=True).data
        well = bool(found) and all(sample["healthy"] for sample in found)
        return Response({"healthy": well, "shards": found})
