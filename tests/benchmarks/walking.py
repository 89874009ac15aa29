"""Walking through a whole table, page by page, as a client does: one after the other.

How a page names the next one differs from server to server; the contender says it. The client's
own share, which is to find that name, is the same for all and small: bodies are not parsed whole
unless the name can only be found so.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks import rows
from tests.benchmarks.figures import Sample, percentile
from tests.benchmarks.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a walk."""

    path: str
    body: str = ""


# Given the body of a page and its number from 1, the request for the next one; None at the end.
NextPage = Callable[[bytes, int], Ask | None]


class WalkLost(Exception):
    """A page was refused, or the walk did not end where the table does."""


def walk(traffic: Traffic, next_page: NextPage, *, seconds: float) -> Sample:
    """Return what whole walks through all items measured; a request is a page.

    Walks are begun for so many seconds, and the last one is brought to its end.
    """
    connection = http.client.HTTPConnection(traffic.host, traffic.port, timeout=30)
    latencies: list[float] = []
    began = time.perf_counter()
    try:
        while time.perf_counter() - began < seconds:
            latencies += _walk_once(connection, traffic, next_page)
    finally:
        connection.close()
    return Sample(
        requests=len(latencies),
        seconds=time.perf_counter() - began,
        p50_us=percentile(latencies, 0.5) * 1e6,
        p99_us=percentile(latencies, 0.99) * 1e6,
    )


def _walk_once(
    connection: http.client.HTTPConnection, traffic: Traffic, next_page: NextPage
) -> list[float]:
    """Return the seconds that each page of one walk took."""
    headers = dict(traffic.headers)
    latencies: list[float] = []
    asked: Ask | None = Ask(traffic.path, traffic.body)
    while asked is not None:
        sent = time.perf_counter()
        connection.request(traffic.method, asked.path, body=asked.body or None, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        latencies.append(time.perf_counter() - sent)
        if answer.status != 200:
            raise WalkLost(f"{traffic.url}{asked.path}: {answer.status} {body[:300]!r}")
        asked = next_page(body, len(latencies))
    pages = rows.ROWS // rows.PAGE_ROWS
    if not pages <= len(latencies) <= pages + 1:  # some learn from an empty page that it was all
        raise WalkLost(f"{traffic.url}: {len(latencies)} pages of {pages}")
    return latencies
