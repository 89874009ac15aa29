"""What is said of conditions: who keeps them, what they may end in, and what has a version."""

from __future__ import annotations

from typing import Any

from modeldefs.kit.conditions import IF_MATCH, IF_NONE_MATCH
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.row_versions import row_check


def is_kept(endpoint: Endpoint[Any, Any]) -> bool:
    """Does the endpoint keep a condition on its row?"""
    return endpoint.shape == "single" or row_check(endpoint) is not None


def has_version(endpoint: Endpoint[Any, Any]) -> bool:
    """Has an answer the row's version as its ETag?"""
    return endpoint.shape in ("single", "row")


def may_be_unchanged(endpoint: Endpoint[Any, Any], method: str) -> bool:
    """May the answer be 304?"""
    return endpoint.kind != "mutation" and (
        method == "GET" or (method == "QUERY" and endpoint.shape == "single")
    )


def condition_parameters(endpoint: Endpoint[Any, Any], method: str) -> list[dict[str, Any]]:
    """Return the headers that say a condition on the row, or on the answer."""
    if not is_kept(endpoint):
        asked = 'ETags that the caller has (304); any, `""` for one, asks for that of the answer.'
        is_read = may_be_unchanged(endpoint, method)
        return [_parameter(IF_NONE_MATCH, asked, is_required=False)] if is_read else []
    is_write = endpoint.kind == "mutation"
    created = "`*`: create the row, or do nothing (412)."
    known = "ETags that the caller has: one of them is not sent again (304)."
    return [
        _parameter(
            IF_MATCH,
            "Versions of the row, or `*`: it has one of them, or nothing is done (412).",
            is_required=endpoint.options.if_match == "required",
        ),
        _parameter(IF_NONE_MATCH, created if is_write else known, is_required=False),
    ]


def _parameter(name: str, description: str, *, is_required: bool) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": is_required,
        "description": description,
        "schema": {"type": "string"},
        "example": "*",
    }


def condition_codes(endpoint: Endpoint[Any, Any]) -> tuple[str, ...]:
    """Return the problems that conditions may end in."""
    if not is_kept(endpoint):
        return ()
    demanded = ("precondition-required",) if endpoint.options.if_match == "required" else ()
    return ("stale", *demanded)
