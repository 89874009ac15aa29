"""The OpenAPI document of the control API is valid, and has every route that there is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import URLPattern
from openapi_spec_validator import OpenAPIV32SpecValidator

from dispatcher_site.api.control.openapi import control_document, routes
from dispatcher_site.api.control.urls import router, urlpatterns
from modeldefs.kit.openapi.document import document_bytes


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Return the document, as JSON carries it."""
    found: dict[str, Any] = json.loads(document_bytes(control_document(urlpatterns)))
    return found


def test_it_is_openapi_3_2(document: dict[str, Any]) -> None:
    """The official schema has nothing against it."""
    assert "3.2.0" == document["openapi"]
    assert [] == [each.message for each in OpenAPIV32SpecValidator(document).iter_errors()]


def test_every_route_is_there(document: dict[str, Any]) -> None:
    """Each path and method of the router is an operation with a name of its own."""
    served = {(route.path, route.method) for route in routes(urlpatterns)}
    told = {(path, method) for path, item in document["paths"].items() for method in item}
    names = [each["operationId"] for item in document["paths"].values() for each in item.values()]

    assert served == told
    assert {f"/control/v1/{prefix}/" for prefix, _, _ in router.registry} <= {p for p, _ in told}
    assert len(names) == len(set(names))


def test_lists_say_their_filters_and_pages(document: dict[str, Any]) -> None:
    """Each list has its pages; a filter has the values that it takes."""
    jobs = {
        each["name"]: each["schema"]
        for each in document["paths"]["/control/v1/jobs/"]["get"]["parameters"]
    }
    for path, item in document["paths"].items():
        parameters = {each["name"] for each in item.get("get", {}).get("parameters", ())}
        is_list = item.get("get", {}).get("operationId", "").endswith("_list")
        assert is_list == ({"page", "page_size"} <= parameters), path

    assert ["planned", "running", "done", "failed", "cancelled"] == jobs["state"]["enum"]
    assert {"type": "integer", "minimum": 1, "maximum": 500} == jobs["page_size"]


def test_every_change_says_what_it_takes_and_refuses(document: dict[str, Any]) -> None:
    """Each POST has a body of known members alone, and its problems."""
    schemas = document["components"]["schemas"]
    changes = [item["post"] for item in document["paths"].values() if "post" in item]
    assert len(changes) > 8
    for operation in changes:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        taken = schemas[schema["$ref"].rpartition("/")[2]]
        assert taken["additionalProperties"] is False
        assert {"400", "401", "403", "404", "415", "429", "503"} <= set(operation["responses"])


def test_a_change_that_says_nothing_is_refused() -> None:
    """A route without its declaration does not get into a document half described."""

    class Silent:
        resource = "silent"

        def post(self) -> None:
            """Do something."""

    def callback() -> None:
        """Answer."""

    callback.cls = Silent  # type: ignore[attr-defined]
    pattern = next(each for each in urlpatterns if isinstance(each, URLPattern))
    bare = URLPattern(pattern.pattern, callback)

    with pytest.raises(TypeError, match="does not say"):
        control_document([bare])
