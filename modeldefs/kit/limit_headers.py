"""How OpenAPI describes the headers that limits add to answers."""

from __future__ import annotations

from typing import Any

LIMIT_HEADERS: dict[str, Any] = {
    "RateLimit-Policy": {
        "description": "The limits of the key, if it has any.",
        "schema": {"type": "string"},
        "example": '"key";q=1000;w=60',
    },
    "RateLimit": {
        "description": "What is left of them, and in how many seconds all of it is.",
        "schema": {"type": "string"},
        "example": '"key";r=412;t=31',
    },
}


def headers_of(status: int) -> dict[str, Any]:
    """Return the headers of a problem with this status, as a member of its description."""
    headers = {} if status == 401 else dict(LIMIT_HEADERS)  # who is nobody has no limits
    if status in (429, 503):
        schema = {"type": "integer", "minimum": 1}
        headers["Retry-After"] = {"description": "Seconds.", "schema": schema}
    return {"headers": headers} if headers else {}
