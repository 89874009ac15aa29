"""The OpenAPI description says exactly what the request reader takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modeldefs.kit.catalog import Catalog, load_catalog
from modeldefs.kit.decorators import query
from modeldefs.kit.operations import answer_schema, build_api, parameter_schema
from tests.unit.kit.planning import resolved
from tests.unit.kit.test_endpoints import columns, everything

STRING_INT64 = {"type": "string", "format": "int64"}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Return the shop's catalog."""
    return load_catalog(["tests.definitions_shop"])


@pytest.fixture(scope="module")
def document(catalog: Catalog) -> dict[str, Any]:
    """Return the OpenAPI document, as JSON carries it."""
    api = build_api(catalog, title="Shop", docs_decorator=lambda view: view, docs_url=None)
    found: dict[str, Any] = json.loads(json.dumps(api.get_openapi_schema(path_prefix="")))
    return found


def test_every_endpoint_is_there(document: dict[str, Any], catalog: Catalog) -> None:
    """Each endpoint is one path, with GET and POST for reads and POST for writes."""
    assert {f"/{name}" for name in catalog.endpoints} == set(document["paths"])
    assert {"get", "post"} == set(document["paths"]["/customers"])
    assert {"post"} == set(document["paths"]["/rename"])


def _url_parameters(document: dict[str, Any], path: str) -> dict[str, Any]:
    parameters = document["paths"][path]["get"]["parameters"]
    return {each["name"]: each for each in parameters if each["in"] == "query"}


def test_preferences_are_described(document: dict[str, Any]) -> None:
    """Every operation takes `Prefer`, with what it honours as examples; a write may answer 204."""
    read, write = document["paths"]["/customers"]["get"], document["paths"]["/rename"]["post"]
    examples = {}
    for operation in (read, write):
        (prefer,) = [each for each in operation["parameters"] if each["name"] == "Prefer"]
        assert ("header", False) == (prefer["in"], prefer["required"])
        examples[operation["operationId"]] = {v["value"] for v in prefer["examples"].values()}

    assert "partial" in examples["customers_get"]
    assert {"tx=rollback", "return=minimal"} <= examples["rename_post"]
    assert "204" in write["responses"]
    assert "Preference-Applied" in read["responses"]["200"]["headers"]


def test_parameters_of_a_page(document: dict[str, Any]) -> None:
    """A page takes its own parameters, and `limit` and `after`."""
    found = _url_parameters(document, "/customers")

    assert {
        "id": STRING_INT64,
        "name": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50},
        "after": {"type": "string", "description": "`next` of the page before"},
    } == {name: parameter["schema"] for name, parameter in found.items()}
    assert {False} == {parameter["required"] for parameter in found.values()}


def test_a_page_is_described_as_lines_too(document: dict[str, Any]) -> None:
    """A page answers JSON and JSON lines, whose item is the page's; totals answer JSON alone."""
    paths = document["paths"]
    page = paths["/customers"]["get"]["responses"]["200"]["content"]
    count = paths["/top_countries"]["get"]["responses"]["200"]["content"]
    item = page["application/json"]["schema"]["properties"]["items"]["items"]

    assert {"application/json", "application/jsonl"} == set(page)
    assert item == page["application/jsonl"]["x-item-schema"]
    assert {"application/json"} == set(count)


def test_body_of_a_write(document: dict[str, Any]) -> None:
    """A body takes what is declared and nothing else; a nullable column may be null."""
    content = document["paths"]["/rename"]["post"]["requestBody"]["content"]

    assert {
        "type": "object",
        "properties": {
            "id": STRING_INT64,
            "name": {"type": "string"},
            "nick": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["id", "name"],
        "additionalProperties": False,
    } == content["application/json"]["schema"]


def test_defaults_have_the_type_of_their_parameter() -> None:
    """A default stands in the schema as JSON carries it."""
    specs = resolved(query(everything)).by_name

    assert {"type": "number", "default": 1.0} == parameter_schema(specs["share"])
    assert {"type": "string", "enum": ["a", "b"], "default": "b"} == parameter_schema(
        specs["kind"]
    )
    assert "PT1H" == parameter_schema(specs["span"])["default"]
    assert {
        "type": "array",
        "items": {"type": "string", "format": "uuid"},
        "maxItems": 1000,
    } == parameter_schema(specs["many"])


def test_default_of_a_flag(document: dict[str, Any]) -> None:
    """A boolean default is a boolean."""
    (active, limit) = _url_parameters(document, "/top_countries").values()

    assert {"type": "boolean", "default": True} == active["schema"]
    assert {"type": "integer", "minimum": 1, "default": 3} == limit["schema"]


def test_bounds_of_the_column() -> None:
    """Lengths and ranges of the column are in the schema."""
    specs = resolved(query(columns)).by_name

    assert {"type": "string", "maxLength": 10} == parameter_schema(specs["label"])
    assert {
        "type": "integer",
        "format": "int32",
        "minimum": 0,
        "maximum": 32767,
    } == parameter_schema(specs["weight"])


def test_answer_of_a_page(catalog: Catalog) -> None:
    """A page has rows of the model's columns, a cursor, and how many shards were asked."""
    schema = answer_schema(catalog, catalog.endpoints["customers"])
    row = schema["properties"]["items"]["items"]

    assert ["items", "next", "shards"] == schema["required"]
    assert {"anyOf": [{"type": "string"}, {"type": "null"}]} == row["properties"]["nick"]
    assert {"type": "boolean"} == row["properties"]["active"]
    assert "bucket" not in row["properties"]


def test_answers_of_aggregates_and_writes(catalog: Catalog) -> None:
    """Groups are a list of rows, totals one row, a write's own value anything."""
    groups = answer_schema(catalog, catalog.endpoints["top_countries"])
    totals = answer_schema(catalog, catalog.endpoints["spent"])

    assert ["country_id", "people"] == groups["properties"]["value"]["items"]["required"]
    assert {"type": "integer", "format": "int64"} == totals["properties"]["value"]["properties"][
        "orders"
    ]
    assert {} == answer_schema(catalog, catalog.endpoints["rename"])


def test_refusals_are_described(document: dict[str, Any]) -> None:
    """Each operation names the problems that every endpoint may answer with."""
    responses = document["paths"]["/customers"]["get"]["responses"]

    assert {"200", "400", "401", "403", "429", "503", "504"} == set(responses)
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} == set(responses["429"]["headers"])
    assert {"RateLimit", "RateLimit-Policy"} <= set(responses["200"]["headers"])
    assert {"$ref": "#/components/schemas/Problem"} == responses["400"]["content"][
        "application/problem+json"
    ]["schema"]
