"""JSON Schemas of what endpoints answer."""

from __future__ import annotations

from typing import Any

from modeldefs.kit.catalog import Catalog
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.openapi.values import example_of
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.replies import PROBLEM_MEMBER
from modeldefs.kit.request_headers import JSON_TYPE, LINES_TYPE
from modeldefs.kit.statements import output_columns
from modeldefs.kit.tracing import presence_sets

_COUNT = {"type": "integer", "minimum": 0}
SHARDS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "How many shards were asked, and what the answer lacks.",
    "properties": {
        "asked": {**_COUNT, "example": 1},
        "answered": {**_COUNT, "example": 1},
        "missing": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/ShardFault"},
            "example": [],
        },
        "coverage": {"type": "number", "minimum": 0, "maximum": 1, "example": 1},
    },
    "required": ["asked", "answered", "missing", "coverage"],
}
_COUNTED = {
    "type": "object",
    "description": "How many rows there are in all, where `Prefer: count=` asked for it.",
    "properties": {"value": {**_COUNT, "example": 412}, "exact": {"type": "boolean"}},
    "required": ["value", "exact"],
}
_LATE = {
    "type": "integer",
    "minimum": 1,
    "description": "How many of the rows are those of shards that were missing before.",
}


def answer_content(catalog: Catalog, endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    """Return the content of a 200, by media type, each with an example."""
    schema = answer_schema(catalog, endpoint)
    shown = {"schema": schema, "example": answer_example(schema)}
    content: dict[str, Any] = {JSON_TYPE.decode(): shown}
    if endpoint.shape == "page":
        broken = {
            "type": "object",
            "description": "The last line of an export that broke off: its problem, and where to "
            "go on.",
            "properties": {PROBLEM_MEMBER: {"$ref": "#/components/schemas/Problem"}},
            "required": [PROBLEM_MEMBER],
        }
        row = schema["properties"]["items"]["items"]
        content[LINES_TYPE.decode()] = {"itemSchema": {"anyOf": [row, broken]}}
    return content


def answer_example(schema: dict[str, Any]) -> Any:
    """Return an answer that the schema allows."""
    properties = schema.get("properties", {})
    if "shards" not in properties:
        return example_of(schema)
    shards = {name: sub["example"] for name, sub in SHARDS_SCHEMA["properties"].items()}
    shown = {name: example_of(sub) for name, sub in properties.items() if name != "shards"}
    return {**shown, **({"next": None} if "next" in shown else {}), "shards": shards}


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
    shards: dict[str, Any] = {"$ref": "#/components/schemas/Shards"}
    optional: dict[str, Any] = {}
    if endpoint.shape == "page":
        shards = {"$ref": "#/components/schemas/PageShards"}
        members: dict[str, Any] = {
            "items": {"type": "array", "items": row},
            "next": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        }
        optional["count"] = _COUNTED
    elif endpoint.shape == "groups":
        members = {"value": {"type": "array", "items": row}}
    elif endpoint.shape == "single":
        # Beside a missing shard, or where the author said so, there may be no such row.
        members = {
            "value": {"anyOf": [row, {"type": "null"}]} if endpoint.optional_result else row
        }
    else:
        members = {"value": next(iter(row["properties"].values())) if endpoint.is_scalar else row}
    return {
        "type": "object",
        "properties": {**members, **optional, "shards": shards},
        "required": [*members, "shards"],
    }


def answer_components() -> dict[str, Any]:
    """Return the schemas that answers refer to."""
    late = {**SHARDS_SCHEMA["properties"], "late": _LATE}
    return {"Shards": SHARDS_SCHEMA, "PageShards": {**SHARDS_SCHEMA, "properties": late}}


def _row_schema(columns: Any) -> dict[str, Any]:
    properties = {}
    for column in columns:
        schema = column.form.json_schema()
        properties[column.name] = (
            {"anyOf": [schema, {"type": "null"}]} if column.nullable and schema else schema
        )
    return {"type": "object", "properties": properties, "required": list(properties)}
