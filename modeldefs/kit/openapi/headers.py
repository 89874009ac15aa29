"""Headers of requests and answers: their schemas once, as components, and who has which.

Invariant: what is said of an answer's headers is all that the front ever adds to such an answer;
that one is said does not mean that every answer has it, unless its description says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.openapi.conditions import has_version
from modeldefs.kit.request_headers import TIMEOUT_DEFAULT_MS, TIMEOUT_MAX_MS


def _header(description: str, example: Any = None, **schema: Any) -> dict[str, Any]:
    told = {"description": description, "schema": schema or {"type": "string"}}
    return told if example is None else {**told, "example": example}


ANSWER_HEADERS: dict[str, dict[str, Any]] = {
    "Age": _header(
        "For how many seconds the answer was kept, where it was.", 12, type="integer", minimum=0
    ),
    "Allow": _header("The methods that the endpoint answers.", "GET, HEAD, QUERY, POST, OPTIONS"),
    "Api-Version": _header(
        "The version of the endpoint's model that the answer has.", 1, type="integer", minimum=1
    ),
    "Cache-Control": _header("Who may keep the answer, how long.", "private, no-cache"),
    "Cache-Status": _header(
        "Where the answer is from, if the endpoint keeps answers (RFC 9211); with a `ttl` below "
        "0: it is stale, as the shards cannot be asked.",
        "shardpoint; hit; ttl=18",
    ),
    "Deprecation": _header(
        "Since when the answer's version is to end, in Unix seconds (RFC 9745).", "@1788220800"
    ),
    "ETag": _header(
        "The version of the row, or of the answer; weak where several shards were asked, and of "
        "pages and totals, which carry one where `If-None-Match` asks for it.",
        '"6d0d6b5e0a3c6c1f9d2a9a1f6a4b7c3e"',
    ),
    "Idempotency-Replayed": _header(
        "Nothing was written: the answer is that of the first request with this key.",
        const="true",
        type="string",
    ),
    "Link": _header(
        "The next page, of a GET; of an older version its successor, and where people read about "
        "its end.",
        '</get_user?country=Sweden&after=eyJ...>; rel="next"',
    ),
    "Preference-Applied": _header("What of `Prefer` was honoured.", "partial"),
    "RateLimit": _header(
        "What is left of the key's limits, and in how many seconds all of it is there again. "
        "Keys without limits have none.",
        '"key";r=412;t=31',
    ),
    "RateLimit-Policy": _header("The limits of the key, if it has any.", '"key";q=1000;w=60'),
    "Retry-After": _header("Seconds until it is worth a try.", 1, type="integer", minimum=1),
    "Server-Timing": _header(
        "Where the time went, where `Shardpoint-Timing: 1` asked for it; in ms.",
        "route;dur=0.21, s1;dur=4.10, merge;dur=0.30, total;dur=4.61",
    ),
    "Shardpoint-Coverage": _header(
        "The share of all buckets that the answer is about, where it is not 1.",
        0.75,
        type="number",
        minimum=0,
        maximum=1,
    ),
    "Sunset": _header(
        "When the answer's version is to be retired (RFC 8594).", "Mon, 01 Mar 2027 00:00:00 GMT"
    ),
    "Traceparent": _header(
        "The caller's trace with a span of ours, where the request had one.",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        type="string",
        pattern="^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
    ),
    "Vary": _header("Which headers of a request the answer depends on."),
    "Www-Authenticate": _header("How to say who is calling.", 'Bearer realm="shardpoint"'),
    "X-Request-Id": _header(
        "Names the request in logs; every answer has one.",
        "8e0c5984656800000001",
        type="string",
        pattern="^[A-Za-z0-9._-]{1,64}$",
    ),
}
_OF_ALL = ("X-Request-Id", "RateLimit", "RateLimit-Policy", "Server-Timing", "Traceparent")
_OF_VERSIONS = ("Api-Version", "Deprecation", "Link", "Sunset")
_OF_SUCCESS = (*_OF_VERSIONS, "Cache-Control", "Preference-Applied", "Vary")
_SPELLED = {"Traceparent": "traceparent", "Www-Authenticate": "WWW-Authenticate"}


def success_headers(endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    """Return the headers of an answer that is no problem."""
    versioned = ("ETag",) if has_version(endpoint) else ()
    if endpoint.kind == "mutation":
        return _listed((*_OF_ALL, *_OF_SUCCESS, *versioned, "Idempotency-Replayed"))
    paged = ("Retry-After",) if endpoint.shape == "page" else ()
    return _listed(
        (*_OF_ALL, *_OF_SUCCESS, *_kept(endpoint), "ETag", "Shardpoint-Coverage", *paged)
    )


def _kept(endpoint: Endpoint[Any, Any]) -> tuple[str, ...]:
    cache = endpoint.options.cache
    return ("Age", "Cache-Status") if cache is not None and cache.keeps else ()


def unchanged_headers() -> dict[str, Any]:
    """Return the headers of a 304."""
    return _listed((*_OF_ALL, *_OF_SUCCESS, "Age", "Cache-Status", "ETag"))


def problem_headers(status: int) -> dict[str, Any]:
    """Return the headers of a problem with this status."""
    more: dict[int, tuple[str, ...]] = {
        401: ("Www-Authenticate",),
        405: ("Allow",),
        429: ("Retry-After",),
        503: ("Retry-After",),
    }
    # Who is nobody has no limits, and what never reached an endpoint has no trace.
    is_early = status in (401, 408, 413, 414, 431)
    names = ("X-Request-Id",) if is_early else (*_OF_ALL, *_OF_VERSIONS)
    return _listed((*names, "Cache-Control", *more.get(status, ())))


def _listed(names: Iterable[str]) -> dict[str, Any]:
    return {
        _SPELLED.get(name, name): {"$ref": f"#/components/headers/{name}"}
        for name in sorted(names)
    }


REQUEST_HEADERS: dict[str, dict[str, Any]] = {
    "Api-Version": {
        "description": "The version of the endpoint's model to answer in, or a day: what was "
        "newest then. The path can name it too: `/v2/...`. Without either it is what the key is "
        "pinned to.",
        "schema": {"type": "string", "pattern": "^([1-9][0-9]{0,5}|[0-9]{4}-[0-9]{2}-[0-9]{2})$"},
    },
    "Idempotency-Key": {
        "description": "A new one for each thing that shall happen once: a repeat under it writes "
        "nothing and gets the first answer.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        "example": "0190a6e4-1b9c-7d3f-a1b2-c3d4e5f60718",
    },
    "Shardpoint-Contract": {
        "description": "The hash of the contract that the caller was made for, as "
        "`x-shardpoint-contract`: refused with 409 if something of it is broken.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "Shardpoint-Timeout-Ms": {
        "description": "How long the caller waits, in ms. What is left of it goes to the shards.",
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": TIMEOUT_MAX_MS,
            "default": TIMEOUT_DEFAULT_MS,
        },
    },
    "Shardpoint-Timing": {
        "description": "`1` asks for `Server-Timing`.",
        "schema": {"type": "string", "enum": ["1"]},
    },
    "traceparent": {
        "description": "The caller's W3C trace context; a malformed one counts as none.",
        "schema": {"type": "string"},
        "example": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    },
}


def parameter_components() -> dict[str, Any]:
    """Return the request headers as parameters that operations refer to."""
    return {
        name: {"name": name, "in": "header", "required": False, **told}
        for name, told in REQUEST_HEADERS.items()
    }


def request_headers(endpoint: Endpoint[Any, Any]) -> list[dict[str, Any]]:
    """Return the request headers that mean something to an endpoint, beside `Prefer`."""
    names = [name for name in REQUEST_HEADERS if name != "Idempotency-Key"]
    if endpoint.kind == "mutation":
        names.insert(0, "Idempotency-Key")
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]
