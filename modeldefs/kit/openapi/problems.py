"""Which problems an operation may answer, and the schema of each.

A schema per code fixes ``type``, ``code`` and ``status``, so that a reader of ``oneOf`` can tell
them apart by ``type`` alone. Those of the framework are components; an author's are too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modeldefs.kit.declared_problems import DeclaredProblem, member_schemas
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.openapi.conditions import condition_codes
from modeldefs.kit.openapi.headers import problem_headers
from modeldefs.wire.problems import PROBLEM_TYPE, STANDARD_PROBLEMS, Problem

# Where the endpoint is called directly: a node answers for what it owns.
_OF_NODES = ("wrong-shard", "stale-epoch")
_OF_ALL = (
    "invalid-request",
    "unknown-version",
    "version-conflict",
    "version-retired",
    "contract-mismatch",
    "result-too-large",
    "unauthorized",
    "forbidden",
    "not-acceptable",
    "request-timeout",
    "body-too-large",
    "uri-too-long",
    "unsupported-media-type",
    "header-too-large",
    "quota-exceeded",
    "internal",
    "definition-fault",
    "shard-untrusted",
    "shard-reset",
    "shard-unavailable",
    "overloaded",
    "shard-behind",
    "deadline-exceeded",
)
_OF_PAGES = ("cursor-invalid", "cursor-expired")
# An author's function may say of its own that something is not there.
_OF_WRITES = (
    "not-found",
    "conflict",
    "in-flight",
    "idempotency-key-reused",
    "transaction-conflict",
    "not-primary",
    "storage-full",
)

FAULT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "What one shard said instead of an answer.",
    "properties": {
        "id": {"type": "string"},
        "code": {"type": "string"},
        "ms": {"type": "number", "minimum": 0},
    },
    "required": ["id", "code", "ms"],
}
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "One breach of the contract.",
    "properties": {
        "parameter": {"type": "string"},
        "pointer": {"type": "string", "description": "Where in the body (RFC 6901)."},
        "code": {"type": "string"},
        "detail": {"type": "string"},
    },
    "required": ["code", "detail"],
}
_RANGES: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0},
        "minItems": 2,
        "maxItems": 2,
    },
}
_WRITTEN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Of a batch: which items are stored, as ranges of their places, first to last.",
    "properties": dict.fromkeys(("yes", "no", "unknown"), _RANGES),
    "required": ["yes", "no", "unknown"],
}
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A refusal (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "code": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "retryable": {"type": "boolean"},
        "retry_after_ms": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/InputError"}},
        "shards": {"type": "array", "items": {"$ref": "#/components/schemas/ShardFault"}},
        "written": {"$ref": "#/components/schemas/Written"},
    },
    "required": [
        *("type", "code", "title", "status", "detail", "instance", "request_id", "retryable"),
        "retry_after_ms",
    ],
}
_BUCKET = {"type": "integer", "minimum": 0, "maximum": 16_383}
_HASH = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_NUMBER = {"type": "integer", "minimum": 1}
_MEMBERS: dict[str, dict[str, Any]] = {
    "contract-mismatch": {
        "sent": _HASH,
        "current": _HASH,
        "breaks": {"type": "array", "items": {"type": "string"}},
    },
    "version-retired": {"model": {"type": "string"}, "version": _NUMBER, "successor": _NUMBER},
    "quota-exceeded": {
        "violated-policies": {
            "type": "array",
            "items": {"type": "string", "enum": ["key", "concurrent"]},
        }
    },
    "wrong-shard": {
        "map_epoch": {"type": "integer"},
        "bucket": _BUCKET,
        "owner": {
            "type": "object",
            "properties": {"shard": {"type": "string"}, "url": {"type": "string"}},
            "required": ["shard", "url"],
        },
    },
    "stale-epoch": {"map_epoch": {"type": "integer"}, "bucket": _BUCKET},
}


def problem_components(kinds: Iterable[type[Problem]]) -> dict[str, Any]:
    """Return the schemas that operations' problems refer to.

    Args:
        kinds: The problems that any operation names, each once.
    """
    return {
        "Problem": PROBLEM_SCHEMA,
        "InputError": _ERROR_SCHEMA,
        "ShardFault": FAULT_SCHEMA,
        "Written": _WRITTEN_SCHEMA,
        **{_name(kind): _kind_schema(kind) for kind in sorted(kinds, key=lambda each: each.code)},
    }


def _name(kind: type[Problem]) -> str:
    return f"Problem.{kind.code}"


def _kind_schema(kind: type[Problem]) -> dict[str, Any]:
    own: dict[str, Any] = dict(_MEMBERS.get(kind.code, {}))
    required: list[str] = []
    if issubclass(kind, DeclaredProblem):
        own = member_schemas(kind)
        required = list(own)
    fixed = {
        "type": {"const": f"/problems/{kind.code}"},
        "code": {"const": kind.code},
        "status": {"const": kind.status},
    }
    return {
        "description": kind.title(),
        "allOf": [
            {"$ref": "#/components/schemas/Problem"},
            {
                "type": "object",
                "properties": {**fixed, **own},
                "required": ["type", "code", "status", *required],
            },
        ],
    }


def problems_of(endpoint: Endpoint[Any, Any], *, is_direct: bool) -> list[type[Problem]]:
    """Return every problem that an endpoint may answer, the author's own included.

    Args:
        endpoint: The endpoint.
        is_direct: It is a node's own, for callers who know the shard map.
    """
    codes = list(_OF_ALL)
    if endpoint.shape == "page":
        codes += _OF_PAGES
    if endpoint.kind == "mutation":
        codes += _OF_WRITES
    elif endpoint.shape == "single" and not endpoint.optional_result:
        codes.append("not-found")
    codes += condition_codes(endpoint)
    if is_direct:
        codes += _OF_NODES
    return [*(STANDARD_PROBLEMS[code] for code in codes), *endpoint.options.problems]


def shared_responses(kinds: Iterable[type[Problem]]) -> dict[str, tuple[str, Any]]:
    """Return each response that is a problem, by status: the name it is shared by, and itself.

    The name says all the codes that it may have, so two of one name are the same.
    """
    by_status: dict[int, list[type[Problem]]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {
        str(status): (
            ".".join([str(status), *(kind.code for kind in each)]),
            {
                "description": " ".join(kind.title() for kind in each),
                "headers": problem_headers(status),
                "content": {PROBLEM_TYPE: {"schema": _one_of(each)}},
            },
        )
        for status, each in sorted(by_status.items())
    }


def _one_of(kinds: list[type[Problem]]) -> dict[str, Any]:
    refs = {f"/problems/{kind.code}": f"#/components/schemas/{_name(kind)}" for kind in kinds}
    if len(kinds) == 1:
        return {"$ref": next(iter(refs.values()))}
    return {
        "oneOf": [{"$ref": ref} for ref in refs.values()],
        "discriminator": {"propertyName": "type", "mapping": refs},
    }
