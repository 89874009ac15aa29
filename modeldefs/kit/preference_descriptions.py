"""What the OpenAPI document says of preferences: the header, and what it does to answers."""

from __future__ import annotations

from typing import Any

from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.preferences import HEADER, preference_examples


def answer_description(endpoint: Endpoint[Any, Any]) -> str:
    """Return what a 200 is, in words."""
    if endpoint.kind == "mutation" or not endpoint.options.partial:
        return "The answer, whole."
    return "The answer: whole, or as `Prefer: partial` asked, without the shards in `missing`."


def prefer_parameter(endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    """Return the header parameter, with every preference that is honoured as an example."""
    examples = preference_examples(endpoint)
    return {
        "name": HEADER,
        "in": "header",
        "required": False,
        "description": "RFC 7240; what is unknown is passed over, unless `handling=strict`.",
        "schema": {"type": "string"},
        "examples": {f"{n}": {"value": each} for n, each in enumerate(examples, 1)},
    }
