"""The one thing a node tells anybody: its name, so that a dispatcher knows whom to enrol.

Unsigned and unproven; the enrolment that follows binds the name.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from shardnode.api.replies import problem_of, problem_response
from shardnode.api.signed_views import Reply, check_method
from shardnode.apps import current_node


def name(request: HttpRequest) -> HttpResponse:
    """Answer with the shard's name."""
    try:
        check_method(request, ("GET",))
        return Reply({"name": current_node().config.name}).response()
    except Exception as fault:
        return problem_response(problem_of(fault, request), request)
