"""The endpoints of this shard, for direct calls that come in through Django, and what says so."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.described import View, documents_of, has_key
from modeldefs.kit.operations import build_api
from modeldefs.wire.problems import Problem, Unauthorized
from shardnode.api.replies import problem_response


def key_required(view: View) -> View:
    """Show a view to holders of an API key only: a node has no log-in."""

    def guarded(request: HttpRequest) -> HttpResponse:
        try:
            if not has_key(request):
                raise Unauthorized
        except Problem as problem:
            return problem_response(problem, request)
        return view(request)

    return guarded


api = build_api(current_catalog())
description: list[URLPattern] = documents_of(
    current_catalog(), title="Shardpoint shard", is_direct=True, guard=key_required
)
