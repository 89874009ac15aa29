"""Hundreds of generated requests to the control API: no 5xx, and nothing that it does not say."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from django.core.cache import cache
from django.test import Client
from schemathesis.core.transport import Response

from dispatcher_site.api.control.authentication import NEWEST
from dispatcher_site.api.control.openapi import control_document
from dispatcher_site.api.control.urls import urlpatterns
from dispatcher_site.registry.services import shards
from modeldefs.wire.problems import Conflict
from tests.contract.generated import cases_each, exercise
from tests.dispatcher.making import make_key, make_shard

pytestmark = pytest.mark.django_db
SITE = "http://testserver"
# A data key's: those need a front, which the tests of a running cluster have.
OF_DATA_KEYS = ("/control/v1/capabilities", "/control/v1/routing")


def is_taken(**_: Any) -> None:
    """Stand for an address where a shard of this cluster is: names are not looked up."""
    raise Conflict


def test_every_answer_is_as_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests as the document says and against it are answered with what it describes."""
    cache.clear()
    NEWEST.forget()
    monkeypatch.setattr(shards, "register_shard", is_taken)
    make_shard("a")
    key = make_key("control", prefix="spa_")
    client = Client(headers={"authorization": f"Bearer {key.text}"}, raise_request_exception=False)

    def send(case: Any) -> Response:
        cache.clear()  # no rate but the test's own
        told = case.as_transport_kwargs(base_url=SITE)
        told = {name: told[name] for name in told if name not in ("timeout", "verify")}
        asked = requests.Request(**told).prepare()
        body = asked.body.encode() if isinstance(asked.body, str) else asked.body or b""
        headers = {
            name: value if isinstance(value, str) else value.decode("latin-1")
            for name, value in asked.headers.items()
            if name.lower() not in ("authorization", "cookie", "content-type", "content-length")
        }
        answer = client.generic(
            asked.method or "GET",
            (asked.url or "").removeprefix(SITE),
            body,
            content_type=str(asked.headers.get("content-type", "application/octet-stream")),
            headers=headers,
        )
        return Response(
            status_code=answer.status_code,
            headers={name: [value] for name, value in answer.items()},
            content=answer.content,
            request=asked,
            elapsed=0.0,
            verify=False,
        )

    document = control_document(urlpatterns)
    paths = {path: told for path, told in document["paths"].items() if path not in OF_DATA_KEYS}
    seen = exercise({**document, "paths": paths}, send, each=cases_each(4))

    statuses = {status for _, status in seen}
    assert {200, 400, 404, 409} <= statuses
    assert sum(seen.values()) > 150
