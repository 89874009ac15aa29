"""`/healthz`: whether this process serves. Says nothing about shards, and needs no key."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse


def healthz(request: HttpRequest) -> JsonResponse:
    """Answer that the process is up."""
    response = JsonResponse({"status": "ok"})
    response["Cache-Control"] = "no-store"
    return response
