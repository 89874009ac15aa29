"""JSON Schemas of single values: parameters in a URL, parameters in a body, and examples.

Each schema allows what the request reader takes, as far as JSON Schema can say it: the patterns
are those of the reader, in the dialect of ECMA 262.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from modeldefs.kit.parameters import (
    DECIMAL_DIGITS_MAX,
    SAFE_INTEGER_MAX,
    TEXT_LENGTH_MAX,
    ParameterSpec,
)
from modeldefs.kit.requests import LIST_LENGTH_MAX

INTEGER_PATTERN = "^-?(0|[1-9][0-9]{0,18})$"
_STRICTER: Mapping[str, dict[str, Any]] = {
    "int64": {"pattern": INTEGER_PATTERN},
    "decimal": {
        "pattern": r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$",
        "maxLength": DECIMAL_DIGITS_MAX,
    },
    "date": {"pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
    "date-time": {
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
        "(Z|[+-][0-9]{2}:[0-9]{2})$"
    },
    "uuid": {"pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
    "duration": {
        "pattern": r"^-?P(?=[-0-9T])(-?[0-9]+D)?(T(?=[-0-9])(-?[0-9]+H)?(-?[0-9]+M)?"
        r"(-?[0-9]+(\.[0-9]{1,6})?S)?)?$"
    },
}
_EXAMPLES: Mapping[str, Any] = {
    "int64": "42",
    "decimal": "12.50",
    "date": "2026-11-23",
    "date-time": "2026-11-23T02:36:23.100000Z",
    "time": "02:36:23",
    "uuid": "0190a6e4-1b9c-8d3f-a1b2-c3d4e5f60718",
    "duration": "P1DT2H3M",
}


def url_schema(spec: ParameterSpec) -> dict[str, Any]:
    """Return the JSON Schema of one parameter in a URL; a list is its name repeated."""
    schema = _leaf(spec)
    if schema["type"] == "integer":
        schema |= {"minimum": spec.low, "maximum": spec.high}
    return _listed(spec, schema)


def body_schema(spec: ParameterSpec) -> dict[str, Any]:
    """Return the JSON Schema of one parameter in a JSON body."""
    schema = _leaf(spec)
    if schema["type"] == "integer":
        schema |= {"minimum": spec.low, "maximum": spec.high}
    elif schema.get("format") == "int64":
        number = {
            "type": "integer",
            "minimum": max(spec.low, -SAFE_INTEGER_MAX),
            "maximum": min(spec.high, SAFE_INTEGER_MAX),
        }
        schema = {"anyOf": [schema, number]}
    schema = _listed(spec, schema)
    if not spec.nullable:
        return schema
    default = {"default": schema.pop("default")} if "default" in schema else {}
    return {"anyOf": [*schema.pop("anyOf", [schema]), {"type": "null"}], **default}


def _leaf(spec: ParameterSpec) -> dict[str, Any]:
    schema: dict[str, Any] = dict(spec.kind.schema)
    schema |= _STRICTER.get(schema.get("format", ""), {})
    if spec.choices:
        schema["enum"] = list(spec.choices)
    elif schema == {"type": "string"}:
        schema |= {"maxLength": min(spec.length_max, TEXT_LENGTH_MAX), "pattern": r"^[^\u0000]*$"}
    return schema


def _listed(spec: ParameterSpec, schema: dict[str, Any]) -> dict[str, Any]:
    if spec.is_list:
        schema = {"type": "array", "items": schema, "maxItems": LIST_LENGTH_MAX}
    if spec.default is not None:
        schema["default"] = _default_json(spec)
    return schema


def _default_json(spec: ParameterSpec) -> Any:
    text = spec.default or ""
    if spec.is_list:
        return [text]
    return text if dict(spec.kind.schema)["type"] == "string" else json.loads(text)


def example_of(schema: Mapping[str, Any]) -> Any:
    """Return a value that a schema of ours allows, the same each time."""
    for word in ("example", "const", "default"):
        if word in schema:
            return schema[word]
    if "enum" in schema:
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return example_of(schema[word][0])
    kind = schema.get("type")
    if kind == "object":
        return {name: example_of(sub) for name, sub in schema.get("properties", {}).items()}
    if kind == "array":
        least = max(1, schema.get("minItems", 1))
        return [example_of(schema["items"])] * least
    if kind == "string":
        return _EXAMPLES.get(schema.get("format", ""), _text_example(schema))
    if kind in ("integer", "number"):
        return max(schema.get("minimum", -math.inf), min(schema.get("maximum", math.inf), 42))
    return {"boolean": True}.get(str(kind))


def _text_example(schema: Mapping[str, Any]) -> str:
    if "contentEncoding" in schema:
        return "c2hhcmQ="
    if "[0-9]" in schema.get("pattern", ""):
        return "42"
    return "text"[: schema.get("maxLength", 4)]
