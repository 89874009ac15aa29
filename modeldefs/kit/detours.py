"""The ways of an ask that few requests take: what a client prefers beside the plain answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from modeldefs.kit.asks import Ask, Backend, Outcome
from modeldefs.kit.counting import CountedPage
from modeldefs.kit.waiting import LongPoll, Waiters
from modeldefs.wire.http1 import Cancel


def submit_as_preferred(
    backend: Backend, waiters: Waiters, ask: Ask, done: Callable[[Outcome], None]
) -> Cancel | None:
    """Have the ask answered as its client prefers; ``done`` is called once."""

    def submit(each: Ask, told: Callable[[Outcome], None]) -> Cancel | None:
        if each.prefers.count:
            return CountedPage(each, told).begin(backend)
        return backend.submit(each, told)

    if ask.prefers.wait_s:
        loop = asyncio.get_running_loop()
        return LongPoll(ask, done, submit=submit, waiters=waiters, loop=loop).begin()
    return submit(ask, done)
