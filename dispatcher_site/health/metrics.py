"""`/metrics`: what the workers of this dispatcher counted, as Prometheus reads it.

For keys with the scope ``control@*:metrics:read`` (of the control API or of data) and for staff;
everyone else gets the same refusal as anywhere. The text names endpoints and shards, never rows.
"""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from dispatcher_site.api.control.authentication import NEWEST, data_principal
from dispatcher_site.api.refusals import problem_reply
from modeldefs.wire.exposition import CONTENT_TYPE, render
from modeldefs.wire.keys import READ, required_scope
from modeldefs.wire.meter_files import MeterFolder
from modeldefs.wire.metric_names import DISPATCHER, SCOPE_MODEL, SCOPE_NAME
from modeldefs.wire.problems import Forbidden, MethodNotAllowed, Problem, Unauthorized


@csrf_exempt  # it changes nothing, and any other method than GET shall hear so
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with every metric of this dispatcher."""
    try:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(headers=(("allow", "GET, HEAD"),))
        _check_caller(request)
    except Problem as problem:
        return problem_reply(request, problem)
    _, totals, _ = MeterFolder(settings.SHARDPOINT_METERS_DIR).read()
    response = HttpResponse(render(totals, DISPATCHER), content_type=CONTENT_TYPE)
    response["Cache-Control"] = "no-store"
    return response


def _check_caller(request: HttpRequest) -> None:
    header = request.headers.get("Authorization") or request.headers.get("X-Api-Key") or ""
    if header:
        client_host = str(request.META.get("REMOTE_ADDR") or "")
        principal = data_principal(header, client_host) or NEWEST.ring().authenticate(
            header, client_host, time.time()
        )
        if not principal.may(SCOPE_MODEL, 1, SCOPE_NAME, READ):
            scope = required_scope(SCOPE_MODEL, "*", SCOPE_NAME, READ)
            raise Forbidden(f"the API key lacks the scope {scope}")
        return
    user: Any = request.user
    if not (user.is_active and user.is_staff):
        raise Unauthorized
