"""Declaring an endpoint in a test and asking the kit what it makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modeldefs.kit.decorators import aggregate, query
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.parameters import BadValue
from modeldefs.kit.plans import ReadPlan, read_plan
from modeldefs.kit.requests import RequestReader
from modeldefs.wire.problems import InvalidRequest
from tests.definitions_shop.shop import Country, Customer, Order, Parcel

TABLES = {model._meta.db_table: model for model in (Country, Customer, Order, Parcel)}


def resolved(endpoint: Endpoint[Any, Any]) -> Endpoint[Any, Any]:
    """Return the endpoint with its signature read."""
    endpoint.resolve()
    return endpoint


def plan_of(endpoint: Endpoint[Any, Any], *present: str) -> ReadPlan:
    """Return the plan of an endpoint with these parameters present."""
    return read_plan(resolved(endpoint), frozenset(present), TABLES)


def page_plan(body: Callable[..., Any], *present: str, order: str = "") -> ReadPlan:
    """Return the plan of a function declared as a query."""
    return plan_of(query(order=order)(body), *present)


def groups_plan(body: Callable[..., Any], *present: str, order: str = "") -> ReadPlan:
    """Return the plan of a function declared as an aggregate."""
    return plan_of(aggregate(order=order)(body), *present)


def code_of(work: Callable[[], object]) -> str:
    """Return the code of the DefinitionError that the work raises; "" if it raises none."""
    try:
        work()
    except DefinitionError as refusal:
        return refusal.code
    return ""


def bad_value(work: Callable[[], object]) -> str:
    """Return the code of the BadValue that the work raises; "" if it raises none."""
    try:
        work()
    except BadValue as bad:
        return bad.code
    return ""


def read(
    endpoint: Endpoint[Any, Any], *, url: bytes = b"", body: bytes = b"", kind: str = ""
) -> dict[str, Any]:
    """Return the values that a request carries."""
    content_type = kind.encode() or b"application/json"
    reader = RequestReader(endpoint)
    asked = reader.read(query=url, body=body, content_type=content_type, has_body=bool(body))
    return asked.values


def breaches(
    endpoint: Endpoint[Any, Any], *, url: bytes = b"", body: bytes = b""
) -> list[tuple[str, str | None, str | None]]:
    """Return the (code, parameter, pointer) of every breach in a request."""
    try:
        read(endpoint, url=url, body=body)
    except InvalidRequest as refused:
        return [(error.code, error.parameter, error.pointer) for error in refused.errors]
    return []
