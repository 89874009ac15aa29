"""Where the description of the control API is read: its documents, and a page for people."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from dispatcher_site.api.control.openapi import control_document
from modeldefs.kit.described import JSON_TYPE, OLDER_PATH, docs_page
from modeldefs.kit.openapi.document import document_bytes
from modeldefs.kit.openapi.older import as_3_1

TITLE = "Shardpoint control API"
PAGES = {"Control API": "/control/v1/", "Data endpoints": "/docs", "Admin": "/admin/"}


@cache
def document() -> dict[str, Any]:
    """Return the document of every route."""
    from dispatcher_site.api.control.urls import urlpatterns  # which serve this

    return control_document(urlpatterns)


@cache
def newest() -> bytes:
    """Return the document as OpenAPI 3.2."""
    return document_bytes(document())


@cache
def older() -> bytes:
    """Return the document as OpenAPI 3.1."""
    return document_bytes(as_3_1(document()))


class Description(APIView):
    """The control API, for who may see what there is."""

    resource = "root"
    is_described = False

    def get(self, request: Request) -> HttpResponse:
        """Return the document."""
        return HttpResponse(newest(), content_type=JSON_TYPE)


class OlderDescription(Description):
    """The same for tools that do not read OpenAPI 3.2."""

    def get(self, request: Request) -> HttpResponse:
        """Return the document."""
        return HttpResponse(older(), content_type=JSON_TYPE)


docs = staff_member_required(docs_page(TITLE, f"/control/v1/{OLDER_PATH}", PAGES))
