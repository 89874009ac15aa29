"""Control views: signed by the dispatcher this node is enrolled with, answered signed.

Invariant: the signature over the raw body is verified before the body is parsed, and no control
request reaches Postgres without it; enrolment alone comes before there is a key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse

from modeldefs.wire.problems import (
    InputError,
    InvalidRequest,
    MethodNotAllowed,
    Unauthorized,
)
from modeldefs.wire.signing import HEADER_KEY_ID, sign_response, verify_request
from shardnode.api.replies import problem_of, problem_response
from shardnode.apps import current_node
from shardnode.guard.callers import JSON_TYPE, check_json_type
from shardnode.node import Node


@dataclass(frozen=True, slots=True)
class Reply:
    """What a control view answers: a document, or a body of its own type."""

    document: Any = None
    body: bytes | None = None
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> HttpResponse:
        """Return the answer, not yet signed."""
        body = self.body
        if body is None:
            body = json.dumps(self.document, separators=(",", ":"), default=str).encode()
        response = HttpResponse(body, content_type=self.content_type)
        response["Cache-Control"] = "no-store"
        for name, value in self.headers.items():
            response[name] = value
        return response


View = Callable[..., Reply]


def signed(*methods: str) -> Callable[[View], Callable[..., HttpResponse]]:
    """Serve a view to the dispatcher of this node only, with these methods."""

    def decorate(view: View) -> Callable[..., HttpResponse]:
        def answer(request: HttpRequest, **arguments: Any) -> HttpResponse:
            node = current_node()
            try:
                pair_key, request_mac = _verify(request, node)
            except Exception as fault:
                return problem_response(problem_of(fault, request), request)
            try:
                check_method(request, methods)
                response = view(request, node, **arguments).response()
            except Exception as fault:
                response = problem_response(problem_of(fault, request), request)
            proof = sign_response(
                pair_key=pair_key,
                status=response.status_code,
                body=response.content,
                request_mac=request_mac,
            )
            for name, value in proof.items():
                response[name] = value
            return response

        return answer

    return decorate


def check_method(request: HttpRequest, methods: tuple[str, ...]) -> None:
    """Refuse another method than these.

    Raises:
        MethodNotAllowed: ``Allow`` lists them.
    """
    if request.method not in methods:
        raise MethodNotAllowed(headers=(("allow", ", ".join(methods)),))


def json_body(request: HttpRequest) -> dict[str, Any]:
    """Return the members of a JSON object.

    Raises:
        UnsupportedMediaType: The body does not call itself JSON.
        InvalidRequest: The body is no JSON object.
    """
    check_json_type(request.headers.get("Content-Type", ""))
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidRequest(
            errors=[InputError(code="malformed-body", detail="a JSON object is expected")]
        )
    return document


def _verify(request: HttpRequest, node: Node) -> tuple[bytes, str]:
    pair_key = node.trust.pair_key_of(request.headers.get(HEADER_KEY_ID, ""))
    if pair_key is None:
        raise Unauthorized
    mac = verify_request(
        pair_key=pair_key,
        shard=node.config.name,
        method=request.method or "",
        target=target_of(request),
        body=request.body,
        headers=request.headers,
        nonces=node.nonces,
        now=time.time(),
    )
    return pair_key, mac


def target_of(request: HttpRequest) -> str:
    """Return path and query as they stood in the request line."""
    scope = getattr(request, "scope", None)
    if scope is None:
        return request.get_full_path()
    raw = scope.get("raw_path") or scope["path"].encode()
    query = scope.get("query_string") or b""
    target: bytes = raw.partition(b"?")[0] + (b"?" + query if query else b"")
    return target.decode("latin-1")
