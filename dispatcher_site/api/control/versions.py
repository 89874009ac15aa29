"""The versions of models in the control API: what lives, and what is to end."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from dispatcher_site.api.control.authentication import actor_of
from dispatcher_site.api.control.documents import ModelVersionDocument, Reason
from dispatcher_site.api.control.questions import choice, text
from dispatcher_site.api.control.saying import Said, says
from dispatcher_site.api.control.views import ReadOnly
from dispatcher_site.registry.models import ModelVersion
from dispatcher_site.registry.services import versions
from dispatcher_site.trust import roles

_OF_CHANGES = ("not-found", "conflict")


class DeprecatedVersion(Reason):
    """What deprecating a version takes."""

    sunset = serializers.DateTimeField(required=False)
    notice = serializers.CharField(max_length=500, required=False, default="", allow_blank=True)


class Versions(ReadOnly):
    """The versions of the models, as `Model@number`."""

    resource = "versions"
    queryset = ModelVersion.objects.all()
    serializer_class = ModelVersionDocument
    lookup_value_regex = "[A-Za-z_][A-Za-z0-9_]{0,99}@[1-9][0-9]{0,5}"
    filters = {"model": text("model_id"), "state": choice("state", ModelVersion.State.values)}
    permissions = dict.fromkeys(("deprecate", "retire", "revive"), roles.RUN_ROLLOUT)

    def get_object(self) -> Any:
        """Return the version of a model by its number."""
        model, _, number = str(self.kwargs["pk"]).partition("@")
        found = self.get_queryset().filter(model_id=model, number=int(number)).first()
        if found is None:
            raise Http404
        return found

    def _said(self, request: Request, form: type[Reason]) -> dict[str, Any]:
        """Return what a service takes: who, which version, and what was sent."""
        given = form(data=request.data)
        given.is_valid(raise_exception=True)
        model, _, number = str(self.kwargs["pk"]).partition("@")
        return {
            "actor": actor_of(request),
            "model": model,
            "number": int(number),
            **given.validated_data,
        }

    @says(Said(takes=DeprecatedVersion, gives=ModelVersionDocument, raises=_OF_CHANGES))
    @action(detail=True, methods=["post"])
    def deprecate(self, request: Request, pk: str) -> Response:
        """Tell its callers that its end comes: `{"sunset"?, "notice"?, "reason"?}`."""
        version = versions.deprecate_version(**self._said(request, DeprecatedVersion))
        return Response(ModelVersionDocument(version).data)

    @says(Said(takes=Reason, gives=ModelVersionDocument, raises=_OF_CHANGES))
    @action(detail=True, methods=["post"])
    def retire(self, request: Request, pk: str) -> Response:
        """Serve it no more, if no key uses it: `{"reason"?}`."""
        version = versions.retire_version(**self._said(request, Reason))
        return Response(ModelVersionDocument(version).data)

    @says(Said(takes=Reason, gives=ModelVersionDocument, raises=_OF_CHANGES))
    @action(detail=True, methods=["post"])
    def revive(self, request: Request, pk: str) -> Response:
        """Take back its deprecation or retirement: `{"reason"?}`."""
        version = versions.revive_version(**self._said(request, Reason))
        return Response(ModelVersionDocument(version).data)
