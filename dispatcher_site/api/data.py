"""The data endpoints of the cluster: a road through Django, and their description.

The description is for who holds an API key or is signed in to the admin.
"""

from __future__ import annotations

from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path

from dispatcher_site.api.refusals import problem_reply
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.described import OLDER_PATH, View, docs_page, documents_of, has_key
from modeldefs.kit.operations import build_api
from modeldefs.wire.problems import Problem

TITLE = "Shardpoint"
PAGES = {"Data endpoints": "/docs", "Control API": "/control/v1/docs", "Admin": "/admin/"}


def key_or_staff_required(view: View) -> View:
    """Show a view to holders of an API key and to people signed in to the admin."""
    for_staff = staff_member_required(view)

    def guarded(request: HttpRequest) -> HttpResponse:
        try:
            shown = view if has_key(request) else for_staff
        except Problem as problem:
            return problem_reply(request, problem)
        return shown(request)

    return guarded


data_api = build_api(current_catalog())
description: list[URLPattern] = [
    *documents_of(current_catalog(), title=TITLE, is_direct=False, guard=key_or_staff_required),
    path(
        "docs", staff_member_required(docs_page(TITLE, f"/{OLDER_PATH}", PAGES)), name="data-docs"
    ),
]
