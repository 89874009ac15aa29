"""A page for each problem: what its ``type`` leads to, for people and for programs."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.html import format_html

from modeldefs.wire.problems import problem_kind

PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>{code}</title>"
    "<h1>{code}</h1><p>{title}</p><dl><dt>HTTP status<dd>{status}"
    "<dt>Does trying again help?<dd>{retryable}</dl></html>"
)


def problem_page(request: HttpRequest, code: str) -> HttpResponse:
    """Say what a problem means, as HTML or, if asked for, as JSON."""
    kind = problem_kind(code)
    if kind is None or kind.code == "declared-problem":
        raise Http404
    facts = {
        "type": f"/problems/{kind.code}",
        "code": kind.code,
        "title": kind.title(),
        "status": kind.status,
        "retryable": kind.retryable,
    }
    if request.accepts("text/html"):
        retryable = "yes" if kind.retryable else "no"
        return HttpResponse(format_html(PAGE, **{**facts, "retryable": retryable}))
    return JsonResponse(facts)
