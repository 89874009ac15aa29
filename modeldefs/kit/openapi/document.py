"""The OpenAPI 3.2 document of a catalog's endpoints: byte for byte the same for the same bundle.

Made from the parameters that the request reader enforces and the headers and problems that the
front answers with, so that what it says is what is checked. HEAD (as GET, without a body) and
OPTIONS (204 with ``Allow``) are answered everywhere and said once, in its description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from modeldefs.kit.catalog import Catalog
from modeldefs.kit.contracts import contract_hash, contract_of
from modeldefs.kit.endpoints import TOP_MAX, Endpoint
from modeldefs.kit.many import ITEMS_MAX, ManyEndpoint
from modeldefs.kit.openapi.answers import answer_components, answer_content
from modeldefs.kit.openapi.conditions import (
    condition_parameters,
    has_version,
    may_be_unchanged,
)
from modeldefs.kit.openapi.headers import (
    ANSWER_HEADERS,
    parameter_components,
    request_headers,
    success_headers,
    unchanged_headers,
)
from modeldefs.kit.openapi.problems import problem_components, problems_of, shared_responses
from modeldefs.kit.openapi.values import body_schema, example_of, url_schema
from modeldefs.kit.preference_descriptions import answer_description, prefer_parameter
from modeldefs.kit.requests import CURSOR_LENGTH_MAX, EXPORT_ROWS_MAX

OPENAPI = "3.2.0"
# HEAD and OPTIONS have no description of their own.
_SHOWN = ("GET", "QUERY", "POST", "PUT", "PATCH", "DELETE")
_IN_URL = ("GET", "DELETE")
_DESCRIPTION = (
    "Every query is a typed endpoint. Send the key as `Authorization: Bearer` or `X-Api-Key`. "
    "`HEAD` answers what `GET` does, without the body; `OPTIONS` answers 204 with `Allow`; every "
    "other method 405 with `Allow` and the problem `method-not-allowed`. A path that is no "
    "endpoint answers 404, `unknown-endpoint`, to who has a key."
)


def data_document(catalog: Catalog, *, title: str, is_direct: bool) -> dict[str, Any]:
    """Return the document.

    Args:
        catalog: What is served.
        title: Whose document it is.
        is_direct: It is that of a node, which answers for what it owns.
    """
    kinds = {
        kind
        for endpoint in catalog.by_number
        for kind in problems_of(endpoint, is_direct=is_direct)
    }
    models = {endpoint.model for endpoint in catalog.by_number}
    shared: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for endpoint in catalog.by_number:
        responses = _responses(catalog, endpoint, is_direct=is_direct)
        shared |= dict(responses.values())
        names = {status: name for status, (name, _) in responses.items()}
        contract = contract_hash(contract_of(catalog, endpoint, endpoint.version))
        paths[f"/{endpoint.name}"] = _path_item(endpoint, names, contract)
    return {
        "openapi": OPENAPI,
        "info": {
            "title": title,
            "version": catalog.bundle_id[:12],
            "description": _DESCRIPTION,
        },
        "tags": [
            {"name": model.__name__, "description": _first_line(model.__doc__)}
            for model in sorted(models, key=lambda each: each.__name__)
        ],
        "security": [{"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": {**problem_components(kinds), **answer_components()},
            "responses": shared,
            "headers": ANSWER_HEADERS,
            "parameters": parameter_components(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, `spk_...`.",
                },
                "header": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Api-Key",
                    "description": "An API key, where `Authorization` is somebody else's.",
                },
            },
        },
    }


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON, the same bytes for the same document."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().partition("\n")[0]


def _path_item(
    endpoint: Endpoint[Any, Any], responses: Mapping[str, str], contract: str
) -> dict[str, Any]:
    shown = sorted((m for m in endpoint.methods if m in _SHOWN), key=_SHOWN.index)
    known = {"x-shardpoint-contract": contract}
    return {method.lower(): _operation(endpoint, method, responses) | known for method in shown}


def _responses(
    catalog: Catalog, endpoint: Endpoint[Any, Any], *, is_direct: bool
) -> dict[str, tuple[str, Any]]:
    """Return every response of an endpoint by status, with the name that it is shared by."""
    headers = success_headers(endpoint)
    done: dict[str, tuple[str, Any]] = {
        "200": (
            f"{endpoint.name}.200",
            {
                "description": answer_description(endpoint),
                "headers": headers,
                "content": answer_content(catalog, endpoint),
            },
        )
    }
    if endpoint.kind == "mutation":
        said = "It is done: the answer to `Prefer: return=minimal`."
        alike = "row" if has_version(endpoint) else "write"
        done["204"] = (f"{alike}.204", {"description": said, "headers": headers})
    else:
        said = "The caller has this answer, by `If-None-Match`."
        done["304"] = ("read.304", {"description": said, "headers": unchanged_headers()})
    return done | shared_responses(problems_of(endpoint, is_direct=is_direct))


def _operation(
    endpoint: Endpoint[Any, Any], method: str, responses: Mapping[str, str]
) -> dict[str, Any]:
    parameters = [
        prefer_parameter(endpoint),
        *condition_parameters(endpoint, method),
        *request_headers(endpoint),
    ]
    if method in _IN_URL:
        parameters += url_parameters(endpoint)
    operation: dict[str, Any] = {
        "operationId": f"{endpoint.name}_{method.lower()}",
        "summary": _first_line(endpoint.doc) or endpoint.name,
        "description": endpoint.doc,
        "tags": [endpoint.model.__name__],
        "parameters": parameters,
        "responses": {
            status: {"$ref": f"#/components/responses/{name}"}
            for status, name in responses.items()
            if status != "304" or may_be_unchanged(endpoint, method)
        },
    }
    if method not in _IN_URL:
        operation["requestBody"] = _request_body(endpoint)
    return operation


def url_parameters(endpoint: Endpoint[Any, Any]) -> list[dict[str, Any]]:
    """Return the parameters of an endpoint as a URL carries them."""
    own = [
        {
            "name": spec.name,
            "in": "query",
            "required": spec.required,
            "schema": (schema := url_schema(spec)),
            "example": example_of(schema),
        }
        for spec in endpoint.parameters
    ]
    paging = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in page_schemas(endpoint).items()
    ]
    return own + paging


def page_schemas(endpoint: Endpoint[Any, Any]) -> dict[str, dict[str, Any]]:
    """Return the schemas of the parameters that the framework adds to an endpoint."""
    schemas: dict[str, dict[str, Any]] = {}
    options = endpoint.options
    if endpoint.shape == "page":
        schemas["limit"] = {
            "type": "integer",
            "minimum": 1,
            "maximum": options.limit_max,
            "default": options.limit,
            "description": f"Rows of a page; of JSON lines all, or up to {EXPORT_ROWS_MAX}.",
        }
        schemas["after"] = {
            "type": "string",
            "maxLength": CURSOR_LENGTH_MAX,
            "description": "`next` of the page before.",
        }
    elif endpoint.shape == "groups" and options.top is not None:
        limit = {"type": "integer", "minimum": 1, "maximum": max(TOP_MAX, options.top)}
        schemas["limit"] = {**limit, "default": options.top}
    return schemas


def _request_body(endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    schema = request_schema(endpoint)
    return {
        "required": any(spec.required for spec in endpoint.parameters),
        "content": {"application/json": {"schema": schema, "example": _body_example(endpoint)}},
    }


def _body_example(endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    shown = {
        spec.name: example_of(body_schema(spec)) for spec in endpoint.parameters if spec.required
    }
    return {"items": [shown]} if isinstance(endpoint, ManyEndpoint) else shown


def request_schema(endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a body."""
    if isinstance(endpoint, ManyEndpoint):
        one = request_schema(endpoint.single)
        items = {"type": "array", "items": one, "minItems": 1, "maxItems": ITEMS_MAX}
        return {
            "type": "object",
            "properties": {"items": items},
            "required": ["items"],
            "additionalProperties": False,
        }
    own = {spec.name: body_schema(spec) for spec in endpoint.parameters}
    return {
        "type": "object",
        "properties": own | page_schemas(endpoint),
        "required": [spec.name for spec in endpoint.parameters if spec.required],
        "additionalProperties": False,
    }
