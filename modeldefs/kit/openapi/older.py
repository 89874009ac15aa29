"""A document of ours for tools that read OpenAPI 3.1 and refuse 3.2: the docs page is one.

Nothing is lost but what 3.1 cannot say: a ``query`` operation stands as an extension, because 3.1
has no such method, and so does the schema of one line. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OLDER = "3.1.1"
_NEWER = {"query": "x-query", "itemSchema": "x-item-schema"}


def as_3_1(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI 3.2 document of ours as one of 3.1."""
    shared = document["components"]
    responses = {
        name: {**answer, "content": _content(answer["content"])} if "content" in answer else answer
        for name, answer in shared.get("responses", {}).items()
    }
    paths = {path: _renamed(operations) for path, operations in document["paths"].items()}
    components = {**shared, "responses": responses}
    return {**document, "openapi": OLDER, "paths": paths, "components": components}


def _content(content: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: _renamed(told) for kind, told in content.items()}


def _renamed(members: Mapping[str, Any]) -> dict[str, Any]:
    return {_NEWER.get(name, name): value for name, value in members.items()}
