"""The OpenAPI 3.2 document of the control API, made from its routes, filters and serializers.

It shares with that of the data endpoints how problems, headers and documents are written. A route
whose view does not say what it takes and gives fails here, and in the tests, not at a client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.urls import URLPattern, URLResolver
from rest_framework import serializers
from rest_framework.viewsets import ViewSetMixin

from dispatcher_site.api.control.questions import FORMAT, PAGES, Filter
from dispatcher_site.api.control.saying import Said, said_of
from dispatcher_site.api.control.schemas import field_schema, object_schema
from modeldefs.kit.openapi.document import OPENAPI
from modeldefs.kit.openapi.headers import ANSWER_HEADERS
from modeldefs.kit.openapi.problems import problem_components, shared_responses
from modeldefs.wire.problems import STANDARD_PROBLEMS

ROOT = "/control/v1/"
Pattern = URLPattern | URLResolver
_PARAMETER = re.compile(r"\(\?P<(\w+)>([^)]+)\)|<(?:\w+:)?(\w+)>")
_OF_ALL = (
    "invalid-request",
    "unauthorized",
    "forbidden",
    "not-found",
    "not-acceptable",
    "request-timeout",
    "body-too-large",
    "uri-too-long",
    "header-too-large",
    "quota-exceeded",
    "internal",
    "overloaded",
    "shard-unavailable",
)
_PAGE: dict[str, Any] = {"text/html": {}}
_ROOT_SCHEMA = {
    "type": "object",
    "description": "The URL of each resource by name.",
    "additionalProperties": {"type": "string"},
}


@dataclass(frozen=True, slots=True)
class Route:
    """One path and method, and what answers it."""

    path: str
    parameters: tuple[tuple[str, str], ...]  # of the path: names and patterns
    method: str
    name: str
    view: type[Any]
    action: str  # of a view set; else the method's own name


def routes(patterns: Iterable[Pattern]) -> Iterator[Route]:
    """Yield every route of a list of URL patterns, by path and method."""
    for pattern in patterns:
        assert isinstance(pattern, URLPattern)
        view = getattr(pattern.callback, "cls", None) or getattr(
            pattern.callback, "view_class", None
        )
        if view is None or not getattr(view, "is_described", True):
            continue  # the documents themselves, and their page
        parameters: list[tuple[str, str]] = []

        def named(match: re.Match[str], found: list[tuple[str, str]] = parameters) -> str:
            found.append((match[1] or match[3], match[2] or "[^/]+"))
            return "{" + found[-1][0] + "}"

        path = ROOT + _PARAMETER.sub(named, str(pattern.pattern)).strip("^$").removesuffix("\\Z")
        actions: Mapping[str, str] = getattr(pattern.callback, "actions", None) or {
            method: method for method in ("get", "post") if hasattr(view, method)
        }
        for method, action in actions.items():
            if method in ("get", "post"):
                yield Route(path, tuple(parameters), method, str(pattern.name), view, action)


def control_document(patterns: Iterable[Pattern]) -> dict[str, Any]:
    """Return the document of the control API."""
    shared: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    codes: set[str] = set()
    paths: dict[str, dict[str, Any]] = {}
    for route in routes(patterns):
        operation = _operation(route, shared, schemas, codes)
        paths.setdefault(route.path, {})[route.method] = operation
    kinds = [STANDARD_PROBLEMS[code] for code in codes]
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "Shardpoint control API",
            "version": "1",
            "description": "What operators and their scripts may see and do. Send a control key "
            "as `Authorization: Bearer` or `X-Api-Key`, or sign in to the admin; then a change "
            "needs the CSRF token. `HEAD` answers what `GET` does; other methods are 405.",
        },
        "tags": [
            {"name": name, "description": doc} for name, doc in sorted(_tags(patterns).items())
        ],
        "security": [{"bearer": []}, {"header": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": {**problem_components(kinds), **dict(sorted(schemas.items()))},
            "responses": dict(sorted(shared.items())),
            "headers": {**ANSWER_HEADERS, **_HEADERS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A control key."},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "session": {"type": "apiKey", "in": "cookie", "name": "sessionid"},
            },
        },
    }


_HEADERS: dict[str, Any] = {
    "Referrer-Policy": {"schema": {"type": "string"}},
    "Shardpoint-Signature": {
        "description": "The dispatcher's signature of the body.",
        "schema": {"type": "string"},
    },
}


def _tags(patterns: Iterable[Pattern]) -> dict[str, str]:
    return {route.view.resource: _first_line(route.view.__doc__) for route in routes(patterns)}


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().partition("\n")[0]


def _operation(
    route: Route, shared: dict[str, Any], schemas: dict[str, Any], codes: set[str]
) -> dict[str, Any]:
    said = _said(route)
    method = getattr(route.view, route.action)
    own = [*_OF_ALL, *(["unsupported-media-type"] if route.method == "post" else [])]
    if route.method == "post" and said.takes is None:
        raise TypeError(f"{route.view.__name__}.{route.action} does not say what it takes")
    own += [code for code in said.raises if code not in own]
    codes.update(own)
    refused = shared_responses([STANDARD_PROBLEMS[code] for code in own])
    if said.is_browsable:
        refused = {status: _with_page(*told) for status, told in refused.items()}
    shared.update(refused.values())
    operation: dict[str, Any] = {
        "operationId": f"{route.view.resource}_{route.action}",
        "summary": _first_line(_doc_of(route, method)),
        "description": _doc_of(route, method),
        "tags": [route.view.resource],
        "parameters": _parameters(route),
        "responses": {
            str(said.status): _answer(route, said, schemas),
            **({"304": _UNCHANGED} if said.is_conditional else {}),
            **{
                status: {"$ref": f"#/components/responses/{name}"}
                for status, (name, _) in refused.items()
            },
        },
    }
    if said.takes is not None:
        operation["requestBody"] = _body(said.takes, schemas)
    return operation


def _with_page(name: str, answer: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a refusal that a person sees as a page around the problem."""
    return f"page.{name}", {**answer, "content": {**answer["content"], **_PAGE}}


_UNCHANGED = {
    "description": "It is what the caller has already.",
    "headers": {"ETag": {"schema": {"type": "string"}}},
}


def _doc_of(route: Route, method: Any) -> str:
    if issubclass(route.view, ViewSetMixin) and route.action in ("list", "retrieve"):
        what = "List" if route.action == "list" else "Look at one"
        return f"{what}: {_first_line(route.view.__doc__)}"
    return (method.__doc__ or "").strip()


def _said(route: Route) -> Said:
    said = said_of(getattr(route.view, route.action))
    if said is not None:
        return said
    if route.view.resource == "root":
        return Said(gives=_ROOT_SCHEMA)
    if route.action in ("list", "retrieve"):
        return Said(gives=route.view.serializer_class)
    raise TypeError(f"{route.view.__name__}.{route.action} does not say what it gives")


def _parameters(route: Route) -> list[dict[str, Any]]:
    own = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": f"^({pattern})$"},
        }
        for name, pattern in route.parameters
    ]
    known: dict[str, Filter] = {}
    if route.action == "list":
        known = {**route.view.filters, **PAGES}
    return own + [
        {
            "name": name,
            "in": "query",
            "required": False,
            **({"description": told.description} if told.description else {}),
            "schema": field_schema(told.field, is_input=True),
        }
        for name, told in {**known, **FORMAT}.items()
    ]


def _body(takes: type[serializers.BaseSerializer[Any]], schemas: dict[str, Any]) -> dict[str, Any]:
    taken = takes()
    schemas[takes.__name__] = object_schema(taken, is_input=True)
    is_required = bool(schemas[takes.__name__]["required"])
    ref = {"$ref": f"#/components/schemas/{takes.__name__}"}
    return {"required": is_required, "content": {"application/json": {"schema": ref}}}


def _answer(route: Route, said: Said, schemas: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any]
    if isinstance(said.gives, dict):
        schema = said.gives
    else:
        name = said.gives.__name__
        schemas[name] = object_schema(said.gives(), is_input=False)
        schema = {"$ref": f"#/components/schemas/{name}"}
    if said.is_list:
        schema = {"type": "array", "items": schema}
    elif route.action == "list":
        schema = _page_of(schema)
    headers = ("X-Request-Id", "Cache-Control", "Vary", "Allow", *said.headers)
    return {
        "description": "What is asked for." if route.method == "get" else "It is done.",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in sorted(headers)},
        # A page for people is of the same things; which is answered, `Accept` says.
        "content": {
            "application/json": {"schema": schema},
            **(_PAGE if said.is_browsable else {}),
        },
    }


@cache
def _link() -> dict[str, Any]:
    return {"anyOf": [{"type": "string"}, {"type": "null"}]}


def _page_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "count": {"type": "integer", "minimum": 0},
            "next": _link(),
            "previous": _link(),
            "results": {"type": "array", "items": schema},
        },
        "required": ["count", "next", "previous", "results"],
    }
