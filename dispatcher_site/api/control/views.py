"""The resources of the control API. Reading shows tables; writing calls the services."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import Http404
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from dispatcher_site.api.control import documents
from dispatcher_site.api.control.authentication import actor_of, may_manage_control_keys
from dispatcher_site.api.control.questions import (
    FORMAT,
    PAGES,
    Filter,
    choice,
    filtered,
    flag,
    moment,
    read_question,
    text,
)
from dispatcher_site.api.control.saying import Said, says
from dispatcher_site.health.models import EndpointMinute, HealthSample
from dispatcher_site.registry import models
from dispatcher_site.registry.services import jobs, keys, shard_map, shards
from dispatcher_site.registry.services.contracts import current_contracts
from dispatcher_site.trust import roles
from dispatcher_site.trust.models import ApiKey, AuditEntry
from modeldefs.wire.problems import Forbidden

NAME = "[A-Za-z0-9_-]{1,100}"
NUMBER = "[0-9]{1,18}"
RESOURCES = (
    *("shards", "nodes", "map", "models", "versions", "endpoints", "keys", "jobs", "metrics"),
    *("audit", "health", "root"),
)
_OF_CHANGES = ("not-found", "conflict")
_WITH_REASON_SHARD = Said(
    takes=documents.Reason, gives=documents.ShardDocument, raises=_OF_CHANGES
)
_WITH_REASON_JOB = Said(takes=documents.Reason, gives=documents.JobDocument, raises=_OF_CHANGES)


def _checked(form: type[documents.StrictInput], request: Request) -> dict[str, Any]:
    given = form(data=request.data)
    given.is_valid(raise_exception=True)
    return dict(given.validated_data)


def _limits(given: dict[str, Any]) -> keys.Limits:
    """Take the limits out of what was given."""
    names = ("rate", "window_s", "burst", "concurrency")
    return keys.Limits(**{name: given.pop(name, None) for name in names})


class Strict(viewsets.GenericViewSet[Any]):
    """A resource whose query string is read strictly: an unknown filter is refused."""

    resource = ""
    filters: ClassVar[Mapping[str, Filter]] = {}
    # What a person needs for each action that changes something.
    permissions: ClassVar[Mapping[str, str]] = {}
    lookup_value_regex = NAME

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse who may not, and then what makes no sense."""
        super().initial(request, *args, **kwargs)
        known = {**self.filters, **PAGES} if self.action == "list" else {}
        self.question = read_question(request.query_params, {**known, **FORMAT})

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that are asked for."""
        if self.action != "list":
            return queryset
        return filtered(queryset, self.question, self.filters)


class ReadOnly(mixins.ListModelMixin, mixins.RetrieveModelMixin, Strict):
    """A resource that can be listed and looked at."""


class Shards(ReadOnly):
    """Who serves what."""

    resource = "shards"
    queryset = models.Shard.objects.all()
    serializer_class = documents.ShardDocument
    lookup_field = "name"
    filters = {
        "state": choice("state", models.Shard.State.values, "What may be done with the shard."),
        "bundle": text("bundle_seen", "The bundle that it runs."),
    }
    permissions = {
        "create": roles.APPROVE_SHARD,
        "quarantine": roles.OPERATE_SHARD,
        "release": roles.APPROVE_SHARD,
    }

    @says(
        Said(
            takes=documents.NewShard,
            gives=documents.PlacedShard,
            status=201,
            raises=("not-found", "conflict", "stale-epoch", "shard-untrusted"),
        )
    )
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

    @says(_WITH_REASON_SHARD)
    @action(detail=True, methods=["post"])
    def quarantine(self, request: Request, name: str) -> Response:
        """Stop trusting the shard: `{"reason"}`."""
        reason = _checked(documents.Reason, request)["reason"]
        shard = shards.quarantine_shard(actor=actor_of(request), name=name, reason=reason)
        return Response(documents.ShardDocument(shard).data)

    @says(_WITH_REASON_SHARD)
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
    lookup_value_regex = NUMBER
    filters = {
        "shard": text("shard__name", "The shard that it serves."),
        "role": choice("role", models.ShardNode.Role.values),
    }


class Maps(ReadOnly):
    """Every shard map there was; `map/current/` is the newest."""

    resource = "map"
    queryset = models.MapEpoch.objects.prefetch_related("ranges__shard")
    serializer_class = documents.MapEpochDocument
    lookup_value_regex = f"{NUMBER}|current"
    filters = {
        "since": moment("created__gte", "Made at this moment or later."),
        "until": moment("created__lt", "Made before it."),
    }

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
    filters = {
        "active": flag("active", "Is it among the definitions of today?"),
        "reference": flag("reference", "Is it copied to every shard?"),
        "package": text("package"),
    }


class Endpoints(ReadOnly):
    """What clients can call."""

    resource = "endpoints"
    queryset = models.Endpoint.objects.all()
    serializer_class = documents.EndpointDocument
    filters = {
        "model": text("model_id"),
        "kind": choice("kind", ("query", "aggregate", "mutation")),
        "active": flag("active", "Is it among the definitions of today?"),
    }

    def get_serializer_context(self) -> dict[str, Any]:
        """Return what the documents show beside their rows."""
        return {**super().get_serializer_context(), "contracts": current_contracts()}


class Keys(ReadOnly):
    """Who may call."""

    resource = "keys"
    queryset = ApiKey.objects.select_related("rotated_from").annotate(
        is_revoked=ExpressionWrapper(Q(revoked_at__isnull=False), output_field=BooleanField())
    )
    serializer_class = documents.KeyDocument
    lookup_field = "kid"
    filters = {
        "owner": text("owner"),
        "kind": choice("kind", ApiKey.Kind.values),
        "revoked": flag("is_revoked", "Is it revoked?"),
        "expires_before": moment("expires_at__lt"),
    }
    permissions = dict.fromkeys(("create", "limit", "pin", "rotate", "revoke"), roles.MANAGE_KEY)

    def _shown_once(self, created: keys.CreatedKey) -> Response:
        document = {**documents.KeyDocument(created.key).data, "key": created.text}
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return Response(document, status=201, headers=headers)

    def _refuse_control_keys(self, request: Request, kid: str) -> None:
        """Let nobody change a key that opens more than he may.

        Raises:
            Forbidden: He would.
        """
        is_control = ApiKey.objects.filter(kid=kid, kind=ApiKey.Kind.CONTROL).exists()
        if is_control and not may_manage_control_keys(request, RESOURCES):
            raise Forbidden("Keys of the control API are for who may do everything.")

    @says(Said(takes=documents.NewKey, gives=documents.ShownKey, status=201))
    def create(self, request: Request) -> Response:
        """Create a key, shown in this answer and never again."""
        given = _checked(documents.NewKey, request)
        is_control = given["kind"] == ApiKey.Kind.CONTROL.value
        if is_control and not may_manage_control_keys(request, RESOURCES):
            raise Forbidden("Keys of the control API are for who may do everything.")
        prefix = documents.KEY_KINDS[given.pop("kind")]
        limits = _limits(given)
        return self._shown_once(
            keys.create_key(actor=actor_of(request), prefix=prefix, limits=limits, **given)
        )

    @says(Said(takes=documents.LimitedKey, gives=documents.KeyDocument, raises=_OF_CHANGES))
    @action(detail=True, methods=["post"])
    def limit(self, request: Request, kid: str) -> Response:
        """Replace all limits: `{"rate"?, "window_s"?, "burst"?, "concurrency"?, "reason"?}`."""
        self._refuse_control_keys(request, kid)
        given = _checked(documents.LimitedKey, request)
        limits = _limits(given)
        key = keys.limit_key(
            actor=actor_of(request), kid=kid, limits=limits, reason=given["reason"]
        )
        return Response(documents.KeyDocument(key).data)

    @says(Said(takes=documents.PinnedKey, gives=documents.KeyDocument, raises=_OF_CHANGES))
    @action(detail=True, methods=["post"])
    def pin(self, request: Request, kid: str) -> Response:
        """Replace what it gets that names no version: `{"pin", "reason"?}`."""
        given = _checked(documents.PinnedKey, request)
        key = keys.pin_key(actor=actor_of(request), kid=kid, **given)
        return Response(documents.KeyDocument(key).data)

    @says(
        Said(
            takes=documents.RotatedKey,
            gives=documents.ShownKey,
            status=201,
            raises=_OF_CHANGES,
        )
    )
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, kid: str) -> Response:
        """Create a successor; the old key lives on for `overlap_hours`."""
        self._refuse_control_keys(request, kid)
        given = _checked(documents.RotatedKey, request)
        created = keys.rotate_key(
            actor=actor_of(request),
            kid=kid,
            overlap=timedelta(hours=given["overlap_hours"]),
            reason=given["reason"],
        )
        return self._shown_once(created)

    @says(Said(takes=documents.Reason, gives=documents.KeyDocument, raises=_OF_CHANGES))
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, kid: str) -> Response:
        """Refuse the key everywhere within five seconds."""
        self._refuse_control_keys(request, kid)
        reason = _checked(documents.Reason, request)["reason"]
        key = keys.revoke_key(actor=actor_of(request), kid=kid, reason=reason)
        return Response(documents.KeyDocument(key).data)


class Jobs(ReadOnly):
    """What runs, what failed."""

    resource = "jobs"
    queryset = models.Job.objects.all()
    serializer_class = documents.JobDocument
    lookup_value_regex = NUMBER
    filters = {
        "state": choice("state", models.Job.State.values),
        "kind": text("kind", length_max=40),
        "created_by": text("created_by"),
        "since": moment("created__gte", "Made at this moment or later."),
        "until": moment("created__lt", "Made before it."),
    }
    permissions = {
        "create": roles.RUN_ROLLOUT,
        "cancel": roles.OPERATE_SHARD,
        "retry": roles.OPERATE_SHARD,
    }

    @says(
        Said(takes=documents.NewJob, gives=documents.JobDocument, status=201, raises=("conflict",))
    )
    def create(self, request: Request) -> Response:
        """Start a job: `{"kind": "apply-definitions" | "publish-map"}`."""
        given = _checked(documents.NewJob, request)
        job = jobs.create_job(
            actor=actor_of(request), kind=given["kind"], payload={}, reason=given["reason"]
        )
        return Response(documents.JobDocument(job).data, status=201)

    @says(Said(gives=documents.StepDocument, is_list=True))
    @action(detail=True)
    def steps(self, request: Request, pk: str) -> Response:
        """List the steps of a job."""
        job = jobs.get_job(job_id=int(pk))
        return Response(documents.StepDocument(job.steps.all(), many=True).data)

    @says(_WITH_REASON_JOB)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Ask the job to stop."""
        reason = _checked(documents.Reason, request)["reason"]
        job = jobs.cancel_job(actor=actor_of(request), job_id=int(pk), reason=reason)
        return Response(documents.JobDocument(job).data)

    @says(_WITH_REASON_JOB)
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
    lookup_value_regex = NUMBER
    filters = {
        "action": text("action", "For example `key.revoke`.", length_max=60),
        "actor": text("actor"),
        "actor_kind": text("actor_kind", length_max=16),
        "target": text("target"),
        "outcome": text("outcome", length_max=16),
        "since": moment("at__gte", "At this moment or later."),
        "until": moment("at__lt", "Before it."),
    }


class Metrics(mixins.ListModelMixin, Strict):
    """What each endpoint did in each minute, newest first."""

    resource = "metrics"
    queryset = EndpointMinute.objects.all()
    serializer_class = documents.EndpointMinuteDocument
    filters = {
        "endpoint": text("endpoint", length_max=100),
        "site": text("site", "`front`, or the name of a shard.", length_max=63),
        "since": moment("minute__gte", "This minute and later."),
        "until": moment("minute__lt", "Before it."),
    }


class Health(APIView):
    """The newest sample of every shard."""

    resource = "health"

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse what makes no sense."""
        super().initial(request, *args, **kwargs)
        read_question(request.query_params, FORMAT)

    @says(Said(gives=documents.ClusterHealth))
    def get(self, request: Request) -> Response:
        """Return one sample per shard, and whether all are well."""
        newest: QuerySet[HealthSample] = HealthSample.objects.select_related("shard")
        samples = newest.order_by("shard_id", "-at").distinct("shard_id")
        found = documents.HealthDocument(samples, many=True).data
        well = bool(found) and all(sample["healthy"] for sample in found)
        return Response({"healthy": well, "shards": found})
