"""`/metrics`: what the workers of this node counted, as Prometheus reads it.

For API keys with the scope ``control@*:metrics:read``. The text names endpoints, never rows.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from modeldefs.kit.apps import serving_front
from modeldefs.wire.exposition import CONTENT_TYPE, render
from modeldefs.wire.keys import READ, required_scope
from modeldefs.wire.meter_files import MeterFolder
from modeldefs.wire.metric_names import NODE, SCOPE_MODEL, SCOPE_NAME
from modeldefs.wire.problems import Forbidden, Problem, Unauthorized
from shardnode.api.replies import problem_response
from shardnode.api.signed_views import check_method
from shardnode.apps import current_node


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with every metric of this node."""
    try:
        check_method(request, ("GET", "HEAD"))
        _check_caller(request)
    except Problem as problem:
        return problem_response(problem, request)
    _, totals, _ = MeterFolder(current_node().config.folder / "metrics").read()
    response = HttpResponse(render(totals, NODE), content_type=CONTENT_TYPE)
    response["Cache-Control"] = "no-store"
    return response


def _check_caller(request: HttpRequest) -> None:
    front = serving_front()
    if front is None:
        raise Unauthorized
    header = request.headers.get("Authorization") or request.headers.get("X-Api-Key") or ""
    principal = front.authenticate(
        header.encode("latin-1"), str(request.META.get("REMOTE_ADDR", ""))
    )
    if not principal.may(SCOPE_MODEL, 1, SCOPE_NAME, READ):
        scope = required_scope(SCOPE_MODEL, "*", SCOPE_NAME, READ)
        raise Forbidden(f"the API key lacks the scope {scope}")
