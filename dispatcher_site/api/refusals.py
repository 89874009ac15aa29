"""Every refusal of Django and DRF as problem+json: their own pages never leave this site.

The admin keeps Django's pages, because people read them there.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.views import csrf, defaults
from rest_framework import exceptions
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import set_rollback

from dispatcher_site.api.control.authentication import CallerRefused
from dispatcher_site.registry.deadline_http import NodeUnreachable
from dispatcher_site.trust.middleware import request_id_of
from modeldefs.wire.problems import (
    BodyTooLarge,
    Conflict,
    Forbidden,
    InputError,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    Overloaded,
    Problem,
    QuotaExceeded,
    ShardUnavailable,
    Unauthorized,
    UnsupportedMediaType,
    problem_body,
    problem_headers,
)

log = logging.getLogger("shardpoint.api")

ADMIN = "/admin/"
# What DRF calls a breach, in the words of data endpoints.
INPUT_CODES = {
    "required": "missing",
    "max_value": "out-of-range",
    "min_value": "out-of-range",
    "max_string_length": "too-long",
    "max_length": "too-long",
    "null_characters_not_allowed": "nul-character",
    "surrogate_characters_not_allowed": "invalid-unicode",
    "unknown-parameter": "unknown-parameter",
}


def problem_reply(request: HttpRequest, problem: Problem) -> HttpResponse:
    """Return a problem as Django's response."""
    body = problem_body(problem, instance=request.path, request_id=request_id_of(request))
    response = HttpResponse(body, status=problem.status)
    for name, value in problem_headers(problem):
        response[name] = value
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a malformed request."""
    if request.path.startswith(ADMIN):
        return defaults.bad_request(request, exception)
    if isinstance(exception, RequestDataTooBig):
        return problem_reply(request, BodyTooLarge())
    return problem_reply(request, InvalidRequest("The request is malformed."))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a forbidden request."""
    if request.path.startswith(ADMIN):
        return defaults.permission_denied(request, exception)
    return problem_reply(request, Forbidden("This is not permitted."))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request for what does not exist."""
    if request.path.startswith(ADMIN):
        return defaults.page_not_found(request, exception)
    return problem_reply(request, NotFound("There is nothing at this path."))


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer a request that met a defect."""
    if request.path.startswith(ADMIN):
        return defaults.server_error(request)
    return problem_reply(request, Internal())


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a request without its CSRF token."""
    if request.path.startswith(ADMIN):
        return csrf.csrf_failure(request, reason=reason)
    return problem_reply(request, Forbidden("The CSRF token is missing or wrong."))


def control_failure(failure: Exception, context: dict[str, Any]) -> Response:
    """Answer any exception of the control API; DRF's hook.

    A person who browses it gets its page around the problem, and that is HTML.
    """
    asked = context["request"]
    request: HttpRequest = asked._request
    problem = problem_of(failure)
    if problem.status >= 500:
        log.error("control.failed %s", request.path, exc_info=failure)
    set_rollback()
    document = problem.document(instance=request.path, request_id=request_id_of(request))
    headers = {name: value for name, value in problem_headers(problem) if name != "content-type"}
    response = Response(document, status=problem.status, headers=headers)
    if not isinstance(getattr(asked, "accepted_renderer", None), BrowsableAPIRenderer):
        response.content_type = "application/problem+json"
    return response


def problem_of(failure: Exception) -> Problem:
    """Return the problem that an exception of Django, DRF or ours is; a defect tells nothing."""
    if isinstance(failure, CallerRefused):
        failure = failure.failure
    if isinstance(failure, Problem):
        return failure
    if isinstance(failure, NodeUnreachable):
        return ShardUnavailable("The node does not answer.")
    if isinstance(failure, OperationalError):
        return Overloaded("The registry's database cannot be reached.", retry_after_ms=1000)
    if isinstance(failure, Http404):
        return NotFound()
    if isinstance(failure, PermissionDenied):
        return Forbidden("This is not permitted.")
    if isinstance(failure, SuspiciousOperation):
        return InvalidRequest("The request is malformed.")
    if isinstance(failure, exceptions.APIException):
        return _of_drf(failure)
    return Internal()


def _of_drf(failure: exceptions.APIException) -> Problem:
    if isinstance(failure, exceptions.ValidationError):
        return InvalidRequest(errors=_input_errors(failure.detail))
    if isinstance(failure, exceptions.ParseError):
        error = InputError("malformed-body", "the body is not JSON", pointer="")
        return InvalidRequest(errors=[error])
    if isinstance(failure, exceptions.Throttled):
        wait_ms = int((getattr(failure, "wait", None) or 1) * 1000)
        return QuotaExceeded(retry_after_ms=wait_ms)
    kinds: list[tuple[type[Exception], type[Problem]]] = [
        (exceptions.NotAuthenticated, Unauthorized),
        (exceptions.AuthenticationFailed, Unauthorized),
        (exceptions.PermissionDenied, Forbidden),
        (exceptions.NotFound, NotFound),
        (exceptions.MethodNotAllowed, MethodNotAllowed),
        (exceptions.NotAcceptable, NotAcceptable),
        (exceptions.UnsupportedMediaType, UnsupportedMediaType),
    ]
    for theirs, ours in kinds:
        if isinstance(failure, theirs):
            return ours()
    return Conflict(str(failure.detail)) if failure.status_code == 409 else Internal()


def _input_errors(detail: Any, pointer: str = "") -> list[InputError]:
    if isinstance(detail, dict):
        return [
            error
            for name, sub in detail.items()
            for error in _input_errors(sub, _inside(pointer, str(name)))
        ]
    if isinstance(detail, list):
        return [error for sub in detail for error in _input_errors(sub, pointer)]
    code = INPUT_CODES.get(getattr(detail, "code", ""), "wrong-type")
    return [InputError(code, str(detail), pointer=pointer)]


def _inside(pointer: str, name: str) -> str:
    """Return where a member stands (RFC 6901); what is wrong with all of it stands at its top."""
    if name == api_settings.NON_FIELD_ERRORS_KEY:
        return pointer
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
