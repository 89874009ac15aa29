"""The ways of an ask that few requests take: what a client prefers beside the plain answer."""

from __future__ import annotations

from collections.abc import Callable

from modeldefs.kit.asks import Ask, Backend, Outcome
from modeldefs.kit.counting import CountedPage
from modeldefs.wire.http1 import Cancel


def submit_as_preferred(
    backend: Backend, ask: Ask, done: Callable[[Outcome], None]
) -> Cancel | None:
    """Have the ask answered as its client prefers; ``done`` is called once."""
    if ask.prefers.count:
        return CountedPage(ask, done).begin(backend)
    return backend.submit(ask, done)
