"""The data endpoints as a ninja API: one operation each, for what comes in through Django.

An operation answers by the same front as the fast path. Its description is that of ``described``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, re_path
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI

from modeldefs.kit.catalog import Catalog
from modeldefs.kit.endpoints import RESERVED_PATHS, Endpoint
from modeldefs.kit.handler import answer_through_django

# Every method that the HTTP protocol reads.
_METHODS = (
    *("ACL", "BIND", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD", "LINK", "LOCK", "M-SEARCH"),
    *("MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "OPTIONS", "PATCH", "POST"),
    *("PROPFIND", "PROPPATCH", "PURGE", "PUT", "QUERY", "REBIND", "REPORT", "SEARCH", "SOURCE"),
    *("SUBSCRIBE", "TRACE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE"),
)


def build_api(catalog: Catalog) -> NinjaAPI:
    """Return the ninja API of all endpoints of a catalog; ``described`` has their description."""
    api = NinjaAPI(
        version=catalog.bundle_id[:12], docs_url=None, openapi_url=None, urls_namespace="data"
    )
    for endpoint in catalog.by_number:
        _add(api, endpoint)
    return api


def _add(api: NinjaAPI, endpoint: Endpoint[Any, Any]) -> None:
    # All methods: the front refuses those that the endpoint lacks.
    api.default_router.add_api_operation(
        f"/{endpoint.name}",
        list(_METHODS),
        _view(endpoint.name),
        operation_id=endpoint.name,
        include_in_schema=False,
    )


def unknown_endpoints() -> URLPattern:
    """Return the path of all names that are no endpoint's; it comes after the API's own.

    Django's 404 would tell names apart for who has no key.
    """
    reserved = "|".join(re.escape(name) for name in sorted(RESERVED_PATHS))
    return re_path(
        rf"^(?!(?:{reserved})\Z)(?:v[1-9][0-9]{{0,5}}/)?[A-Za-z][A-Za-z0-9_]{{0,99}}\Z",
        csrf_exempt(_view("unknown")),  # a key is asked for, no cookie
    )


def _view(name: str) -> Callable[..., Any]:
    async def operation(request: HttpRequest) -> HttpResponseBase:
        return await answer_through_django(request)

    operation.__name__ = name
    return operation
