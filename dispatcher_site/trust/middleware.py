"""What every Django request gets: a request id, and a strict Content-Security-Policy."""

from __future__ import annotations

import re
import uuid

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

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


class RequestIdentity(MiddlewareMixin):
    """Give each request an id and say it in the answer."""

    def process_request(self, request: HttpRequest) -> None:
        """Settle the id before anything is logged under it."""
        request_id_of(request)

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Say the id."""
        response.headers.setdefault(REQUEST_ID_HEADER, request_id_of(request))
        return response


class ContentSecurityPolicy(MiddlewareMixin):
    """Allow only our own scripts, styles and pictures, and none of them inline, on every page."""

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Say the policy, and keep pages of operators out of caches."""
        response.headers.setdefault("Content-Security-Policy", settings.SHARDPOINT_CSP)
        if request.path.startswith(("/admin/", "/control/")):
            response.headers.setdefault("Cache-Control", "no-store")
        return response
