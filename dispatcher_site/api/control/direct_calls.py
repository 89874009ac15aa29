"""What a client needs to call nodes by itself: a capability, and the routing map.

Both are for holders of data keys, unlike the rest of the control API. The map is also for those
of a capability, and for operators who may read ``routing``.
"""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from dispatcher_site.api.control import documents
from dispatcher_site.api.control.authentication import (
    AdminSessionAuthentication,
    ControlKeyAuthentication,
    MayControl,
    data_principal,
)
from dispatcher_site.api.control.saying import Said, says
from dispatcher_site.registry.services.capabilities import issue_capability
from dispatcher_site.registry.services.routing_document import NEWEST
from dispatcher_site.trust.pairing import dispatcher_identity
from modeldefs.wire.keys import Principal

_TEXT = {"type": "string"}
_CAPABILITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "capability": _TEXT,
        "expires_at": {"type": "string", "format": "date-time"},
        "expires_in_s": {"type": "integer"},
        "epoch": {"type": "integer"},
        "cluster": _TEXT,
        "public_key": _TEXT,
    },
    "required": [
        *("capability", "expires_at", "expires_in_s", "epoch", "cluster", "public_key"),
    ],
}
_ROUTING: dict[str, Any] = {"type": "object", "description": "The routing map: docs/http.md."}


class DataCaller:
    """Who has proven to be a caller of data, in the place where Django expects a user."""

    is_authenticated = True
    is_active = True
    is_staff = False
    is_anonymous = False

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.pk = principal.kid

    def get_username(self) -> str:
        """Return the key's id."""
        return f"key {self.principal.kid}"


class DataKeyAuthentication(BaseAuthentication):
    """Prove a data key or a capability, as a data endpoint of this process would."""

    def authenticate(self, request: Request) -> tuple[DataCaller, None] | None:
        """Return the caller; None when no key was sent, or one of the control API.

        Raises:
            Unauthorized: It opens nothing here.
            ShardUnavailable: This process does not know the keys.
        """
        header = request.headers.get("Authorization") or request.headers.get("X-Api-Key") or ""
        if not header:
            return None
        principal = data_principal(header, str(request.META.get("REMOTE_ADDR") or ""))
        return None if principal is None else (DataCaller(principal), None)

    def authenticate_header(self, request: Request) -> str:
        """Name the scheme, so that a missing key is 401 and not 403."""
        return 'Bearer realm="shardpoint"'


class IsDataCaller(BasePermission):
    """Let through who may call data; what of it is asked call by call."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Say whether a data key or a capability was proven."""
        user: Any = request.user
        return isinstance(user, DataCaller)


class MayRoute(MayControl):
    """Let through callers of data, and who may read `routing` in the control API."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Say whether the caller may."""
        user: Any = request.user
        return isinstance(user, DataCaller) or super().has_permission(request, view)


class Capabilities(APIView):
    """Short-lived tokens in the place of a key."""

    resource = "capabilities"
    authentication_classes = (DataKeyAuthentication,)
    permission_classes = (IsDataCaller,)

    @says(
        Said(
            takes=documents.NewCapability,
            gives=_CAPABILITY,
            status=201,
            headers=("Referrer-Policy",),
        )
    )
    def post(self, request: Request) -> Response:
        """Trade a data key for a capability: `{"scopes"?, "lifetime_s"?}`."""
        form = documents.NewCapability(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        caller: Any = request.user
        lifetime_max_s = settings.SHARDPOINT_TUNING.capability_s
        issued = issue_capability(
            principal=caller.principal,
            within=given.get("scopes"),
            lifetime_s=min(given.get("lifetime_s", lifetime_max_s), lifetime_max_s),
            now=time.time(),
        )
        claims, identity = issued.claims, dispatcher_identity()
        document = {
            "capability": issued.text,
            "expires_at": datetime.fromtimestamp(claims.expires, UTC).strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            ),
            "expires_in_s": claims.expires - claims.issued,
            "epoch": claims.epoch,
            "cluster": identity.id,
            "public_key": base64.b64encode(identity.public.ed25519).decode("ascii"),
        }
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return Response(document, status=201, headers=headers)


class Routing(APIView):
    """Which node answers what."""

    resource = "routing"
    authentication_classes = (
        DataKeyAuthentication,
        ControlKeyAuthentication,
        AdminSessionAuthentication,
    )
    permission_classes = (MayRoute,)

    @says(
        Said(
            gives=_ROUTING,
            headers=("ETag", "Shardpoint-Signature"),
            is_conditional=True,
            is_browsable=False,
        )
    )
    def get(self, request: Request) -> HttpResponse:
        """Return the signed map, or 304 to who has it already."""
        newest = NEWEST.document()
        known = request.headers.get("If-None-Match", "")
        tags = {each.strip().removeprefix("W/") for each in known.split(",")}
        if newest.etag in tags or "*" in tags:
            response = HttpResponse(status=304)
            del response["Content-Type"]
        else:
            response = HttpResponse(newest.body, content_type="application/json")
            response["Shardpoint-Signature"] = newest.signature
        response["ETag"] = newest.etag
        # Never without asking: who was sent away by a node must not get the old one again.
        response["Cache-Control"] = "private, no-cache"
        response["Vary"] = "Authorization, X-Api-Key, Cookie"
        return response
