"""What is asked of an HTTP contender: one request with places that change from call to call.

``<key>`` is the id of a stored item, ``<category>`` one of its categories, ``<fresh>`` a number
that was never used before. One description makes the requests of both load generators, so that
``wrk`` and our own send the same bytes.

Pure: chance and counters are passed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from tests.benchmarks.rows import FIRST_CATEGORY, LAST_CATEGORY, ROWS

_PLACE = re.compile(r"<(key|category|fresh)>")
_LUA_PIECES_MAX = 50  # Lua has registers for some 200 in one expression
_LUA_OF = {
    "key": f"math.random(1, {ROWS})",
    "category": f"math.random({FIRST_CATEGORY}, {LAST_CATEGORY})",
    "fresh": "string.format('%.0f', fresh)",
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests to one address."""

    host: str
    port: int
    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""

    @property
    def url(self) -> str:
        """Return the address without the path."""
        return f"http://{self.host}:{self.port}"

    def head(self) -> str:
        """Return the request up to its content length."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join(lines) + "\r\n"

    def as_document(self) -> dict[str, Any]:
        """Return what ``from_document`` reads."""
        return asdict(self)

    @staticmethod
    def from_document(document: dict[str, Any]) -> Traffic:
        """Return the traffic of another process."""
        headers = tuple((name, value) for name, value in document["headers"])
        return Traffic(**{**document, "headers": headers})


def renderer(traffic: Traffic, *, chance: Random, fresh_from: int) -> Callable[[], bytes]:
    """Return a function that gives the next request's bytes."""
    fresh = fresh_from

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name == "key":
            return str(chance.randint(1, ROWS))
        if name == "category":
            return str(chance.randint(FIRST_CATEGORY, LAST_CATEGORY))
        return str(fresh)

    def render() -> bytes:
        nonlocal fresh
        fresh += 1
        head = _PLACE.sub(fill, traffic.head())
        if not traffic.body:
            return (head + "\r\n").encode()
        body = _PLACE.sub(fill, traffic.body).encode()
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    return render


def _lua_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\r", "\\r").replace("\n", "\\n") + '"'


def _lua_joined(template: str) -> str:
    if template.count("<fresh>") > _LUA_PIECES_MAX:  # a batch: all of its places are the same
        fresh = _LUA_OF["fresh"]
        return f'(string.gsub({_lua_text(template)}, "<fresh>", {fresh}))'
    parts = [
        _LUA_OF[piece] if place % 2 else _lua_text(piece)
        for place, piece in enumerate(_PLACE.split(template))
        if piece
    ]
    return " .. ".join(parts)


def lua_script(traffic: Traffic, *, seed: int, fresh_from: int) -> str:
    """Return a script for ``wrk`` that sends this traffic and prints what it measured."""
    if traffic.body:
        build = (
            f"  local body = {_lua_joined(traffic.body)}\n"
            f"  return {_lua_joined(traffic.head())} .. "
            '"Content-Length: " .. #body .. "\\r\\n\\r\\n" .. body\n'
        )
    else:
        build = f'  return {_lua_joined(traffic.head())} .. "\\r\\n"\n'
    return f"""\
math.randomseed({seed})
local fresh = {fresh_from}
function request()
  fresh = fresh + 1
{build}end
function done(summary, latency)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format(
    'MEASURED {{"requests": %d, "seconds": %.6f, "p50_us": %.1f, "p99_us": %.1f, "errors": %d}}',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    failed))
end
"""
