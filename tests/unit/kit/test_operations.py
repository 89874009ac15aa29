"""The OpenAPI description says exactly what the request reader takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modeldefs.kit.catalog import Catalog, load_catalog
from modeldefs.kit.decorators import query
from modeldefs.kit.openapi.answers import answer_schema
from modeldefs.kit.openapi.document import data_document, document_bytes
from modeldefs.kit.openapi.values import body_schema, url_schema
from tests.unit.kit.planning import resolved
from tests.unit.kit.test_endpoints import columns, everything

INT64 = {"type": "string", "format": "int64", "pattern": "^-?(0|[1-9][0-9]{0,18})$"}
SAFE = {"type": "integer", "minimum": 1 - 2**53, "maximum": 2**53 - 1}
TEXT = {"type": "string", "maxLength": 1_000_000, "pattern": r"^[^\u0000]*$"}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Return the shop's catalog."""
    return load_catalog(["tests.definitions_shop"])


@pytest.fixture(scope="module")
def document(catalog: Catalog) -> dict[str, Any]:
    """Return the OpenAPI document, as JSON carries it."""
    found: dict[str, Any] = json.loads(
        document_bytes(data_document(catalog, title="Shop", is_direct=False))
    )
    return found


def _answer(document: dict[str, Any], path: str, method: str, status: int) -> dict[str, Any]:
    named = document["paths"][path][method]["responses"][str(status)]["$ref"]
    found: dict[str, Any] = document["components"]["responses"][named.rpartition("/")[2]]
    return found


def test_every_endpoint_is_there(document: dict[str, Any], catalog: Catalog) -> None:
    """Each endpoint is one path: GET, QUERY and POST for reads, POST for writes."""
    assert {f"/{name}" for name in catalog.endpoints} == set(document["paths"])
    assert {"get", "query", "post"} == set(document["paths"]["/customers"])
    assert {"post"} == set(document["paths"]["/rename"])


def _url_parameters(document: dict[str, Any], path: str) -> dict[str, Any]:
    parameters = document["paths"][path]["get"]["parameters"]
    return {each["name"]: each for each in parameters if each.get("in") == "query"}


def test_preferences_are_described(document: dict[str, Any]) -> None:
    """Every operation takes `Prefer`, with what it honours as examples; a write may answer 204."""
    read, write = document["paths"]["/customers"]["get"], document["paths"]["/rename"]["post"]
    examples = {}
    for operation in (read, write):
        (prefer,) = [each for each in operation["parameters"] if each.get("name") == "Prefer"]
        assert ("header", False) == (prefer["in"], prefer["required"])
        examples[operation["operationId"]] = {v["value"] for v in prefer["examples"].values()}

    assert "partial" in examples["customers_get"]
    assert {"tx=rollback", "return=minimal"} <= examples["rename_post"]
    assert "204" in write["responses"]
    assert "Preference-Applied" in _answer(document, "/customers", "get", 200)["headers"]


def test_parameters_of_a_page(document: dict[str, Any]) -> None:
    """A page takes its own parameters, and `limit` and `after`."""
    found = _url_parameters(document, "/customers")

    assert {
        "id": INT64,
        "name": TEXT,
        "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50},
        "after": {"type": "string", "maxLength": 2000},
    } == {
        name: {word: told for word, told in parameter["schema"].items() if word != "description"}
        for name, parameter in found.items()
    }
    assert {False} == {parameter["required"] for parameter in found.values()}


def test_a_page_is_described_as_lines_too(document: dict[str, Any]) -> None:
    """A page answers JSON and JSON lines, whose item is the page's; totals answer JSON alone."""
    page = _answer(document, "/customers", "get", 200)["content"]
    count = _answer(document, "/top_countries", "get", 200)["content"]
    item = page["application/json"]["schema"]["properties"]["items"]["items"]

    assert {"application/json", "application/jsonl"} == set(page)
    assert item == page["application/jsonl"]["itemSchema"]["anyOf"][0]
    assert {"application/json"} == set(count)


def test_body_of_a_write(document: dict[str, Any]) -> None:
    """A body takes what is declared and nothing else; a nullable column may be null."""
    content = document["paths"]["/rename"]["post"]["requestBody"]["content"]

    assert {
        "type": "object",
        "properties": {
            "id": {"anyOf": [INT64, SAFE]},
            "name": TEXT,
            "nick": {"anyOf": [TEXT, {"type": "null"}]},
        },
        "required": ["id", "name"],
        "additionalProperties": False,
    } == content["application/json"]["schema"]


def test_defaults_have_the_type_of_their_parameter() -> None:
    """A default stands in the schema as JSON carries it."""
    specs = resolved(query(everything)).by_name

    assert {"type": "number", "default": 1.0} == url_schema(specs["share"])
    assert {"type": "string", "enum": ["a", "b"], "default": "b"} == url_schema(specs["kind"])
    assert "PT1H" == url_schema(specs["span"])["default"]
    assert {
        "type": "array",
        "items": {
            "type": "string",
            "format": "uuid",
            "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        },
        "maxItems": 1000,
    } == url_schema(specs["many"])


def test_default_of_a_flag(document: dict[str, Any]) -> None:
    """A boolean default is a boolean."""
    (active, limit) = _url_parameters(document, "/top_countries").values()

    assert {"type": "boolean", "default": True} == active["schema"]
    assert {"type": "integer", "minimum": 1, "maximum": 1000, "default": 3} == limit["schema"]


def test_bounds_of_the_column() -> None:
    """Lengths and ranges of the column are in the schema."""
    specs = resolved(query(columns)).by_name

    assert {**TEXT, "maxLength": 10} == url_schema(specs["label"])
    assert {
        "type": "integer",
        "format": "int32",
        "minimum": 0,
        "maximum": 32767,
    } == url_schema(specs["weight"])


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


def test_null_is_for_bodies_alone(catalog: Catalog) -> None:
    """A URL has no null: the same parameter allows it in a body and not there."""
    spec = catalog.endpoints["rename"].by_name["nick"]

    assert {"anyOf": [TEXT, {"type": "null"}]} == body_schema(spec)
    assert TEXT == url_schema(spec)


def test_refusals_are_described(document: dict[str, Any]) -> None:
    """Each operation names every problem that its endpoint may answer, told apart by `type`."""
    reads = set(document["paths"]["/customers"]["get"]["responses"])
    writes = set(document["paths"]["/rename"]["post"]["responses"])
    of_all = {
        *("200", "400", "401", "403", "406", "408", "409", "410", "413", "414", "415", "429"),
        *("431", "500", "502", "503", "504"),
    }
    limited = _answer(document, "/customers", "get", 429)
    bad = _answer(document, "/customers", "get", 400)["content"]["application/problem+json"]

    assert of_all | {"304"} == reads
    assert of_all | {"204", "404", "412", "422"} == writes
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(limited["headers"])
    codes = ["invalid-request", "unknown-version", "version-conflict", "result-too-large"]
    codes += ["cursor-invalid", "cursor-expired"]
    assert [f"#/components/schemas/Problem.{code}" for code in codes] == [
        each["$ref"] for each in bad["schema"]["oneOf"]
    ]
    assert {f"/problems/{code}" for code in codes} == set(
        bad["schema"]["discriminator"]["mapping"]
    )


def test_a_node_says_whose_a_row_is(catalog: Catalog, document: dict[str, Any]) -> None:
    """Called directly an endpoint may answer 421, through the dispatcher never."""
    direct = data_document(catalog, title="Shop", is_direct=True)

    assert "421" in direct["paths"]["/customers"]["get"]["responses"]
    assert "421" not in document["paths"]["/customers"]["get"]["responses"]
    assert "owner" in str(direct["components"]["schemas"]["Problem.wrong-shard"])
