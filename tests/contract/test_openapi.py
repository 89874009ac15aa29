"""The OpenAPI documents are valid, whole, and the same bytes each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS32Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, OpenAPIV32SpecValidator

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.catalog import Catalog, load_catalog
from modeldefs.kit.declared_problems import DeclaredProblem
from modeldefs.kit.openapi.document import data_document, document_bytes
from modeldefs.kit.openapi.older import as_3_1
from modeldefs.wire.problems import STANDARD_PROBLEMS, Problem
from tests.conftest import RUN_DIR

METHODS = ("get", "query", "post", "put", "patch", "delete")
# What no endpoint's operation can answer: other paths and methods do, or the streams inside.
ELSEWHERE = {"unknown-endpoint", "method-not-allowed", "clock-skew"}
NOWHERE_YET = {
    "idempotency-key-missing",
    "precondition-required",  # no endpoint of these definitions demands a condition
}


@pytest.fixture(scope="module", params=["shop", "shipped"])
def catalog(request: pytest.FixtureRequest) -> Catalog:
    """Return the shipped definitions, and those of the tests' shop."""
    if request.param == "shop":
        return load_catalog(["tests.definitions_shop"])
    return current_catalog()


@pytest.fixture(scope="module")
def document(catalog: Catalog) -> dict[str, Any]:
    """Return the dispatcher's document of the shipped definitions, a node's of the shop's."""
    is_direct = "Customer" in catalog.models
    made = data_document(catalog, title="Shop", is_direct=is_direct)
    found: dict[str, Any] = json.loads(document_bytes(made))
    return found


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        for method, operation in item.items():
            assert method in METHODS
            yield operation


def _resolved(document: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in told:
        found: Any = document
        for part in told["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        told = found
    return told


def test_it_is_openapi_3_2(document: dict[str, Any]) -> None:
    """The official schema of OpenAPI 3.2 has nothing against it."""
    assert "3.2.0" == document["openapi"]
    assert [] == [each.message for each in OpenAPIV32SpecValidator(document).iter_errors()]


def test_the_older_form_is_openapi_3_1() -> None:
    """The official schema of OpenAPI 3.1 has nothing against what older tools are given."""
    made = data_document(load_catalog(["tests.definitions_shop"]), title="Shop", is_direct=False)
    older = as_3_1(made)

    assert older["openapi"].startswith("3.1.")
    assert [] == [each.message for each in OpenAPIV31SpecValidator(older).iter_errors()]


def test_examples_are_what_their_schemas_allow(document: dict[str, Any]) -> None:
    """Each example of a parameter, a body, an answer or a header is one that is allowed."""
    shared = {"components": document["components"]}
    shown: list[tuple[Any, Any]] = []
    for operation in _operations(document):
        told = [_resolved(document, each) for each in operation["parameters"]]
        told += operation.get("requestBody", {}).get("content", {}).values()
        for answer in operation["responses"].values():
            told += _resolved(document, answer).get("content", {}).values()
        shown += [(each["schema"], each["example"]) for each in told if "example" in each]
    shown += [
        (each["schema"], each["example"])
        for each in document["components"]["headers"].values()
        if "example" in each
    ]
    assert len(shown) > 50

    wrong = [
        (example, fault.message)
        for schema, example in shown
        for fault in OAS32Validator({**schema, **shared}).iter_errors(example)
    ]
    assert [] == wrong


def test_every_endpoint_and_method_is_there(catalog: Catalog, document: dict[str, Any]) -> None:
    """Each method that an endpoint answers is an operation, but HEAD and OPTIONS, which all do."""
    served = {
        f"/{name}": {m.lower() for m in endpoint.methods} - {"head", "options"}
        for name, endpoint in catalog.endpoints.items()
    }
    names = [operation["operationId"] for operation in _operations(document)]

    assert served == {path: set(item) for path, item in document["paths"].items()}
    assert len(names) == len(set(names))


def test_every_answer_says_its_headers(document: dict[str, Any]) -> None:
    """Each has a request id, each problem one media type, and 429 and 503 when to come back."""
    for operation in _operations(document):
        for status, named in operation["responses"].items():
            answer = _resolved(document, named)
            assert "X-Request-Id" in answer["headers"]
            assert ("Retry-After" in answer["headers"]) >= (status in ("429", "503"))
            assert ("WWW-Authenticate" in answer["headers"]) == (status == "401")
            if int(status) >= 400:
                assert ["application/problem+json"] == list(answer["content"])


def test_every_problem_is_some_operation_s(catalog: Catalog) -> None:
    """Each code of ours is said of an operation, but those that never come from an endpoint."""
    told = document_bytes(data_document(catalog, title="", is_direct=True)).decode()
    ours = {code for code, kind in STANDARD_PROBLEMS.items() if not _is_declared(kind)}
    missing = {code for code in ours if f'"/problems/{code}"' not in told}

    assert missing - {"not-found"} == ELSEWHERE | NOWHERE_YET


def _is_declared(kind: type[Problem]) -> bool:
    return issubclass(kind, DeclaredProblem) or not kind.__module__.startswith("modeldefs.wire")


def test_lines_have_the_schema_of_a_row(document: dict[str, Any]) -> None:
    """What is streamed is described by line: a row, or the problem that it broke off with."""
    lines = [
        _resolved(document, operation["responses"]["200"])["content"]["application/jsonl"]
        for operation in _operations(document)
        if "application/jsonl"
        in _resolved(document, operation["responses"]["200"]).get("content", {})
    ]
    assert lines
    for each in lines:
        row, broken = each["itemSchema"]["anyOf"]
        assert "object" == row["type"]
        assert ["$problem"] == broken["required"]


def test_the_older_form_loses_nothing(document: dict[str, Any]) -> None:
    """A QUERY operation and a line's schema are extensions in 3.1, with all that they say."""
    older = as_3_1(document)
    back = json.loads(
        json.dumps(older)
        .replace('"x-query"', '"query"')
        .replace('"x-item-schema"', '"itemSchema"')
    )

    assert "3.1.1" == older["openapi"]
    assert not any("query" in item for item in older["paths"].values())
    assert document == {**back, "openapi": "3.2.0"}


def test_it_is_the_same_bytes_in_every_process() -> None:
    """Neither the order of a set nor that of an import changes a byte."""
    script = (
        "import django; django.setup(); import hashlib\n"
        "from modeldefs.kit.apps import current_catalog\n"
        "from modeldefs.kit.openapi.document import data_document, document_bytes\n"
        "made = data_document(current_catalog(), title='S', is_direct=False)\n"
        "print(hashlib.sha256(document_bytes(made)).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "RUN_DIR": str(RUN_DIR.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert 1 == len(hashes)
