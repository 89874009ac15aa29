"""Where the description of the data endpoints is read: its documents, and a page for people.

Invariant: nobody reads it who is not known. The page loads nothing from elsewhere and has no
inline script or style, so it works offline and under a policy of 'self' alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path

from modeldefs.kit.apps import serving_front
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.openapi.document import data_document, document_bytes
from modeldefs.kit.openapi.older import as_3_1
from modeldefs.wire.problems import ShardUnavailable

JSON_TYPE = "application/json"
OLDER_PATH = "openapi-3.1.json"
View = Callable[[HttpRequest], HttpResponse]


def documents_of(
    catalog: Catalog, *, title: str, is_direct: bool, guard: Callable[[View], View]
) -> list[URLPattern]:
    """Return the paths of the description: as OpenAPI 3.2, and for tools that only know 3.1.

    Args:
        catalog: What is described; it is read when somebody asks first.
        title: Whose endpoints they are.
        is_direct: They are a node's.
        guard: Lets through who may read them.
    """

    @cache
    def document() -> dict[str, Any]:
        return data_document(catalog, title=title, is_direct=is_direct)

    @cache
    def newest() -> bytes:
        return document_bytes(document())

    @cache
    def older() -> bytes:
        return document_bytes(as_3_1(document()))

    return [
        path("openapi.json", guard(_json(newest)), name="openapi"),
        path(OLDER_PATH, guard(_json(older)), name="openapi-3.1"),
    ]


def _json(body: Callable[[], bytes]) -> View:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(body(), content_type=JSON_TYPE)

    return view


def docs_page(title: str, document_url: str, pages: Mapping[str, str]) -> View:
    """Return the page that shows a document, and lets people try what it describes.

    Args:
        title: Of the page.
        document_url: An OpenAPI 3.1 document: the page's scripts do not know 3.2 yet.
        pages: URLs of what it links to, by name.
    """

    def view(request: HttpRequest) -> HttpResponse:
        context = {"title": title, "document_url": document_url, "pages": pages.items()}
        return render(request, "kit/docs.html", context)

    return view


def has_key(request: HttpRequest) -> bool:
    """Say whether a request proves an API key; False if it has none.

    Raises:
        Unauthorized: Its key is not a valid one.
    """
    key = request.headers.get("Authorization") or request.headers.get("X-Api-Key")
    if not key:
        return False
    front = serving_front()
    if front is None:
        raise ShardUnavailable("this process serves no data")
    front.authenticate(key.encode("latin-1", "replace"), str(request.META.get("REMOTE_ADDR", "")))
    return True
