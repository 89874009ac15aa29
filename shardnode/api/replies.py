"""How the node's Django answers what is refused: problem+json for every status from 400 on.

Nothing of a traceback, a statement or a table leaves the process; the request id in the body is
the one in the log.
"""

from __future__ import annotations

import logging
import uuid

import psycopg
from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from modeldefs.wire.problems import (
    BodyTooLarge,
    Internal,
    InvalidRequest,
    NotFound,
    Problem,
    ShardUnavailable,
    StorageFull,
    TransactionConflict,
    problem_body,
    problem_headers,
)

logger = logging.getLogger(__name__)


def problem_response(problem: Problem, request: HttpRequest) -> HttpResponse:
    """Return the answer that a problem is."""
    response = HttpResponse(
        problem_body(problem, instance=request.path, request_id=request_id_of(request)),
        status=problem.status,
    )
    for name, value in problem_headers(problem):
        response[name] = value
    return response


def request_id_of(request: HttpRequest) -> str:
    """Return the id of a request, the caller's if it sent a short plain one."""
    given = request.headers.get("X-Request-Id", "")
    if 0 < len(given) <= 64 and given.isascii() and given.replace("-", "").isalnum():
        return given
    known = getattr(request, "shardpoint_id", None)
    if known is None:
        known = uuid.uuid4().hex
        request.shardpoint_id = known  # type: ignore[attr-defined]
    return str(known)


def problem_of(fault: Exception, request: HttpRequest) -> Problem:
    """Return the problem that any exception is to the caller; an unexpected one is logged."""
    if isinstance(fault, Problem):
        return fault
    if isinstance(fault, Http404):
        return NotFound()
    if isinstance(fault, RequestDataTooBig):
        return BodyTooLarge()
    if isinstance(fault, BadRequest | SuspiciousOperation):
        return InvalidRequest()
    if isinstance(fault, psycopg.Error) and (known := _database_problem(fault)) is not None:
        logger.warning("api.database_refused", extra={"sqlstate": fault.sqlstate})
        return known
    logger.error("api.failed", exc_info=fault, extra={"request_id": request_id_of(request)})
    return Internal()


def _database_problem(fault: psycopg.Error) -> Problem | None:
    state = fault.sqlstate or ""
    if state == "53100":
        return StorageFull()
    if state in ("40001", "40P01", "55P03", "57014"):
        return TransactionConflict()
    if isinstance(fault, psycopg.OperationalError) or state[:2] in ("08", "53", "57"):
        return ShardUnavailable("This shard's database cannot be asked now.")
    return None


class ProblemMiddleware(MiddlewareMixin):
    """Turns what a view raises into a problem."""

    def process_exception(self, request: HttpRequest, fault: Exception) -> HttpResponse:
        """Answer with the problem that the exception is."""
        return problem_response(problem_of(fault, request), request)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer for a path that nobody serves."""
    del exception
    return problem_response(NotFound("There is nothing at this path."), request)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer for a request that Django itself refuses."""
    return problem_response(problem_of(exception, request), request)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Answer when even the middleware failed."""
    return problem_response(Internal(), request)
