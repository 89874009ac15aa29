"""What every Django request gets: a request id, and a strict Content-Security-Policy."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(request: HttpRequest) -> str:
    """Return the request's id: the caller's if it is well formed, else a new one."""
    known = getattr(request, "request_id", "")
    if not known:
        given = request.headers.get(REQUEST_ID_HEADER, "")
        known = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        request.request_id = known  # type: ignore[attr-defined]
    return str(known)


class RequestIdentity:
    """Give each request an id and say it in the answer."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer with the id in a header."""
        request_id_of(request)
        if iscoroutinefunction(self):
            return self._later(request)  # type: ignore[return-value]
        return self._marked(request, self.get_response(request))

    async def _later(self, request: HttpRequest) -> HttpResponseBase:
        return self._marked(request, await self.get_response(request))  # type: ignore[misc]

    def _marked(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault(REQUEST_ID_HEADER, request_id_of(request))
        return response


class ContentSecurityPolicy(RequestIdentity):
    """Allow only our own scripts, styles and pictures, except where a library needs more."""

    def _marked(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        relaxed = settings.SHARDPOINT_CSP_RELAXED
        policy = next(
            (text for path, text in relaxed.items() if request.path.startswith(path)),
            settings.SHARDPOINT_CSP,
        )
        response.headers.setdefault("Content-Security-Policy", policy)
        if request.path.startswith(("/admin/", "/control/")):
            response.headers.setdefault("Cache-Control", "no-store")
        return response
