"""The endpoints of this shard as a ninja API, for direct calls that come in through Django."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.http import HttpRequest, HttpResponse

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.operations import build_api
from modeldefs.wire.problems import Problem
from shardnode.api.replies import problem_response


def key_required(view: Callable[..., Any]) -> Callable[..., Any]:
    """Show the description to holders of an API key only: a node has no log-in."""

    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        front = apps.get_app_config("kit").front  # type: ignore[attr-defined]
        try:
            key = request.headers.get("Authorization") or request.headers.get("X-Api-Key") or ""
            front.authenticate(key.encode("latin-1"), str(request.META.get("REMOTE_ADDR", "")))
        except Problem as problem:
            return problem_response(problem, request)
        answer: HttpResponse = view(request, *args, **kwargs)
        return answer

    return guarded


api = build_api(
    current_catalog(), title="Shardpoint shard", docs_decorator=key_required, docs_url=None
)
