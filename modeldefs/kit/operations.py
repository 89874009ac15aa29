"""The data endpoints as a ninja API: one operation each, with its OpenAPI description.

The description is made from the same parameters that the request reader enforces, so what the docs
say is what is checked. An operation answers by the same front as the fast path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, re_path
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI

from modeldefs.kit.catalog import Catalog
from modeldefs.kit.declared_problems import DeclaredProblem, member_schemas
from modeldefs.kit.endpoints import RESERVED_PATHS, Endpoint
from modeldefs.kit.handler import answer_through_django
from modeldefs.kit.limit_headers import LIMIT_HEADERS, headers_of
from modeldefs.kit.many import ITEMS_MAX, ManyEndpoint
from modeldefs.kit.parameters import ParameterSpec
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.preference_descriptions import (
    answer_description,
    answer_headers,
    prefer_parameter,
)
from modeldefs.kit.request_headers import LINES_TYPE
from modeldefs.kit.statements import output_columns
from modeldefs.kit.tracing import presence_sets
from modeldefs.wire.problems import STANDARD_PROBLEMS, Problem

_PROBLEMS_OF_ALL = (
    "invalid-request",
    "unauthorized",
    "forbidden",
    "quota-exceeded",
    "overloaded",
    "shard-unavailable",
    "deadline-exceeded",
)
_PROBLEMS_OF_WRITES = (
    "conflict",
    "in-flight",
    "idempotency-key-reused",
    "shard-reset",
    "transaction-conflict",
)
_IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A new one for each thing that shall happen once: a repeat under it writes "
    "nothing and gets the first answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
# Every method that the HTTP protocol reads: those that an endpoint lacks are refused by the front.
_METHODS = (
    *("ACL", "BIND", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD", "LINK", "LOCK", "M-SEARCH"),
    *("MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "OPTIONS", "PATCH", "POST"),
    *("PROPFIND", "PROPPATCH", "PURGE", "PUT", "QUERY", "REBIND", "REPORT", "SEARCH", "SOURCE"),
    *("SUBSCRIBE", "TRACE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE"),
)


def build_api(
    catalog: Catalog, *, title: str, docs_decorator: Callable[..., Any], docs_url: str | None
) -> NinjaAPI:
    """Return the ninja API of all endpoints of a catalog; its docs page where a site has one."""
    api = NinjaAPI(
        title=title,
        version=catalog.bundle_id[:12],
        description="Every query is a typed endpoint. Send the key as `Authorization: Bearer`.",
        docs_url=docs_url,
        openapi_url="/openapi.json",
        docs_decorator=docs_decorator,
        urls_namespace="data",
        openapi_extra={
            "components": {
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
                "schemas": {"Problem": _PROBLEM_SCHEMA},
            },
            "security": [{"key": []}],
        },
    )
    for endpoint in catalog.by_number:
        _add(api, catalog, endpoint)
    return api


def _add(api: NinjaAPI, catalog: Catalog, endpoint: Endpoint[Any, Any]) -> None:
    shown = [method for method in endpoint.methods if method in ("GET", "POST")]
    for method in endpoint.methods:
        api.default_router.add_api_operation(
            f"/{endpoint.name}",
            [method],
            _view(endpoint.name),
            operation_id=f"{endpoint.name}_{method.lower()}",
            summary=endpoint.doc.splitlines()[0] if endpoint.doc else endpoint.name,
            description=endpoint.doc,
            tags=[endpoint.model.__name__],
            include_in_schema=method in shown,
            openapi_extra=_described(catalog, endpoint, method),
        )
    api.default_router.add_api_operation(
        f"/{endpoint.name}",
        [method for method in _METHODS if method not in endpoint.methods],
        _view(endpoint.name),
        operation_id=f"{endpoint.name}_other",
        include_in_schema=False,
    )


def unknown_endpoints() -> URLPattern:
    """Return the path of all names that are no endpoint's; it comes after the API's own.

    Django's 404 would tell names apart for who has no key.
    """
    reserved = "|".join(re.escape(name) for name in sorted(RESERVED_PATHS))
    return re_path(
        rf"^(?!(?:{reserved})\Z)[A-Za-z][A-Za-z0-9_]{{0,99}}\Z",
        csrf_exempt(_view("unknown")),  # a key is asked for, no cookie
    )


def _view(name: str) -> Callable[..., Any]:
    async def operation(request: HttpRequest) -> HttpResponseBase:
        return await answer_through_django(request)

    operation.__name__ = name
    return operation


def _described(catalog: Catalog, endpoint: Endpoint[Any, Any], method: str) -> dict[str, Any]:
    specs = list(endpoint.parameters)
    is_write = endpoint.kind == "mutation"
    codes = (*_PROBLEMS_OF_ALL, *_PROBLEMS_OF_WRITES) if is_write else _PROBLEMS_OF_ALL
    responses: dict[int, Any] = {
        200: {
            "description": answer_description(endpoint),
            "headers": {**answer_headers(endpoint), **LIMIT_HEADERS},
            "content": _answer_content(catalog, endpoint),
        },
        **_problem_responses(codes, endpoint.options.problems),
    }
    parameters = [prefer_parameter(endpoint)]
    if is_write:
        said = "It is done: the answer to `Prefer: return=minimal`."
        responses[204] = {"description": said, "headers": LIMIT_HEADERS}
        parameters.append(_IDEMPOTENCY_KEY)
    described: dict[str, Any] = {"responses": responses, "parameters": parameters}
    if method == "POST":
        described["requestBody"] = {
            "required": any(spec.required for spec in specs),
            "content": {"application/json": {"schema": _body_schema(endpoint, specs)}},
        }
        return described
    described["parameters"] += [
        {
            "name": spec.name,
            "in": "query",
            "required": spec.required,
            "schema": parameter_schema(spec),
        }
        for spec in specs
    ]
    described["parameters"] += [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in _page_schemas(endpoint).items()
    ]
    return described


def _answer_content(catalog: Catalog, endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    schema = answer_schema(catalog, endpoint)
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if endpoint.shape == "page":
        # `itemSchema` is of OpenAPI 3.2; until the document is, the schema of a line is an
        # extension beside that of the whole.
        content[LINES_TYPE.decode()] = {
            "schema": {
                "type": "string",
                "description": "All rows, one JSON object per line. The body ends with its last "
                "chunk only if it is whole; else its last line is a problem as `$problem`.",
            },
            "x-item-schema": schema["properties"]["items"]["items"],
        }
    return content


def parameter_schema(spec: ParameterSpec) -> dict[str, Any]:
    """Return the JSON Schema of one parameter."""
    schema: dict[str, Any] = dict(spec.kind.schema)
    if spec.choices:
        schema["enum"] = list(spec.choices)
    if schema["type"] == "string" and spec.length_max < 1_000_000:
        schema["maxLength"] = spec.length_max
    if schema["type"] == "integer":
        schema |= {"minimum": spec.low, "maximum": spec.high}
    if spec.is_list:
        schema = {"type": "array", "items": schema, "maxItems": 1_000}
    if spec.default is not None:
        schema["default"] = _default_json(spec)
    if spec.nullable:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def _default_json(spec: ParameterSpec) -> Any:
    text = spec.default or ""
    if spec.is_list:
        return [text]
    return text if dict(spec.kind.schema)["type"] == "string" else json.loads(text)


def _page_schemas(endpoint: Endpoint[Any, Any]) -> dict[str, dict[str, Any]]:
    schemas: dict[str, dict[str, Any]] = {}
    options = endpoint.options
    if endpoint.shape == "page":
        limit = {"type": "integer", "minimum": 1, "maximum": options.limit_max}
        schemas["limit"] = {**limit, "default": options.limit}
        schemas["after"] = {"type": "string", "description": "`next` of the page before"}
    elif endpoint.shape == "groups" and options.top is not None:
        schemas["limit"] = {"type": "integer", "minimum": 1, "default": options.top}
    return schemas


def _body_schema(endpoint: Endpoint[Any, Any], specs: list[ParameterSpec]) -> dict[str, Any]:
    if isinstance(endpoint, ManyEndpoint):
        one = _body_schema(endpoint.single, specs)
        items = {"type": "array", "items": one, "minItems": 1, "maxItems": ITEMS_MAX}
        return {
            "type": "object",
            "properties": {"items": items},
            "required": ["items"],
            "additionalProperties": False,
        }
    return {
        "type": "object",
        "properties": {s.name: parameter_schema(s) for s in specs} | _page_schemas(endpoint),
        "required": [spec.name for spec in specs if spec.required],
        "additionalProperties": False,
    }


def answer_schema(catalog: Catalog, endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    """Return the JSON Schema of an endpoint's answer."""
    if endpoint.shape == "value":
        return {}
    if endpoint.shape in ("row", "rows"):
        manager: Any = endpoint.model._default_manager
        one = _row_schema(output_columns(manager.all()))
        return one if endpoint.shape == "row" else {"type": "array", "items": one}
    plan: ReadPlan = catalog.plan(endpoint, presence_sets(endpoint)[-1])
    row = _row_schema(plan.columns)
    shards: dict[str, Any] = {
        "type": "object",
        "properties": {
            "asked": {"type": "integer"},
            "answered": {"type": "integer"},
            "missing": {"type": "array", "items": _FAULT_SCHEMA},
            "coverage": {"type": "number"},
        },
        "required": ["asked", "answered", "missing", "coverage"],
    }
    if endpoint.shape == "page":
        shards["properties"]["late"] = {"type": "integer", "minimum": 1}
        members: dict[str, Any] = {
            "items": {"type": "array", "items": row},
            "next": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        }
    elif endpoint.shape == "groups":
        members = {"value": {"type": "array", "items": row}}
    elif endpoint.shape == "single":
        members = {
            "value": {"anyOf": [row, {"type": "null"}]} if endpoint.optional_result else row
        }
    else:
        members = {"value": next(iter(row["properties"].values())) if endpoint.is_scalar else row}
    return {
        "type": "object",
        "properties": {**members, "shards": shards},
        "required": [*members, "shards"],
    }


def _row_schema(columns: Any) -> dict[str, Any]:
    properties = {}
    for column in columns:
        schema = column.form.json_schema()
        properties[column.name] = (
            {"anyOf": [schema, {"type": "null"}]} if column.nullable and schema else schema
        )
    return {"type": "object", "properties": properties, "required": list(properties)}


def _problem_responses(
    codes: Iterable[str], own: Iterable[type[DeclaredProblem]]
) -> dict[int, Any]:
    by_status: dict[int, list[type[Problem]]] = {}
    for code in codes:
        kind = STANDARD_PROBLEMS[code]
        by_status.setdefault(kind.status, []).append(kind)
    for declared in own:
        by_status.setdefault(declared.status, []).append(declared)
    return {
        status: {
            "description": "; ".join(kind.title() for kind in kinds),
            **headers_of(status),
            "content": {"application/problem+json": {"schema": _problem_schema(kinds)}},
        }
        for status, kinds in sorted(by_status.items())
    }


def _problem_schema(kinds: list[type[Problem]]) -> dict[str, Any]:
    """Return the schema of what is answered with one status."""
    standard = {"$ref": "#/components/schemas/Problem"}
    own = [kind for kind in kinds if issubclass(kind, DeclaredProblem)]
    if not own:
        return standard
    variants = [_declared_schema(kind) for kind in own]
    if len(own) < len(kinds):
        codes = [kind.code for kind in kinds if kind not in own]
        variants.append({"allOf": [standard, {"properties": {"code": {"enum": codes}}}]})
    return {"oneOf": variants} if len(variants) > 1 else variants[0]


def _declared_schema(kind: type[DeclaredProblem]) -> dict[str, Any]:
    members = member_schemas(kind)
    fixed = {"type": {"const": f"/problems/{kind.code}"}, "code": {"const": kind.code}}
    return {
        "allOf": [
            {"$ref": "#/components/schemas/Problem"},
            {
                "type": "object",
                "title": kind.__name__,
                "properties": {**fixed, "status": {"const": kind.status}, **members},
                "required": ["type", "code", *members],
            },
        ]
    }


_RANGES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
}
_FAULT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "code": {"type": "string"},
        "ms": {"type": "number"},
    },
    "required": ["id", "code", "ms"],
}

_PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "code": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "retryable": {"type": "boolean"},
        "retry_after_ms": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "errors": {"type": "array", "items": {"type": "object"}},
        "shards": {"type": "array", "items": {"type": "object"}},
        "written": {
            "type": "object",
            "description": "Of a batch: which items are stored, as ranges of their places, first "
            "to last.",
            "properties": dict.fromkeys(("yes", "no", "unknown"), _RANGES),
            "required": ["yes", "no", "unknown"],
        },
    },
    "required": ["type", "code", "title", "status", "detail", "request_id", "retryable"],
}
