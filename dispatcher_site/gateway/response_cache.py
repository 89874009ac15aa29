"""The response cache: answers of endpoints that declare ``cache=``, in Redis beside the requests.

A request waits 5 ms for Redis at most, and goes to the shards as if there were none when it does
not answer, or answers nonsense; after a failure Redis is left alone for a second. Who may call
was decided before: nobody is answered from here who would not be answered by the shards.

Invariant: for every ask ``done`` is called exactly once, unless it was given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dispatcher_site.gateway.kept_answers import (
    KeptAnswer,
    is_fresh,
    kept_of,
    may_stand_in,
    name_of,
    pack,
    unpack,
)
from modeldefs.kit.asks import Ask, Outcome, Unchanged
from modeldefs.kit.caching import Cache
from modeldefs.wire.problems import Internal, Problem

logger = logging.getLogger(__name__)

READ_TIMEOUT_S = 0.005
WRITE_TIMEOUT_S = 0.25
PAUSE_S = 1.0
WRITES_MAX = 64  # under way at once; what comes beyond is not kept

Done = Callable[[Outcome], None]
Cancel = Callable[[], None]
Forward = Callable[[Ask, Done], Cancel | None]


class Store(Protocol):
    """Where bytes are kept for a while."""

    def get(self, name: str, /) -> Awaitable[Any]:
        """Return what is kept under a name."""

    def set(self, name: str, value: bytes, /, *, ex: int) -> Awaitable[Any]:
        """Keep it for so many seconds."""


class ResponseCache:
    """The cache of one front worker. Use from the loop's thread only."""

    def __init__(
        self, store: Store, *, secret: bytes, clock: Callable[[], float], forward: Forward
    ) -> None:
        self._store, self._secret, self.clock = store, secret, clock
        self.forward = forward
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._not_before = 0.0

    def submit(self, ask: Ask, cache: Cache, done: Done) -> Cancel:
        """Answer an ask from what is kept, or have it answered; ``done`` is called once."""
        assert ask.reuse is not None
        one = _CachedAsk(self, ask, cache, done)
        self._spawn(one.begin())
        return one.give_up

    async def read(self, ask: Ask) -> KeptAnswer | None:
        """Return the answer that is kept, in time or not at all."""
        if self._loop.time() < self._not_before:
            return None
        name = name_of(self._secret, _identity(ask))
        stored = await self._tried(self._store.get(name), READ_TIMEOUT_S)
        return unpack(self._secret, name, stored) if isinstance(stored, bytes) else None

    def keep(self, ask: Ask, cache: Cache, kept: KeptAnswer) -> bool:
        """Keep an answer, some time soon; False: it will not be."""
        if self._loop.time() < self._not_before or len(self._tasks) >= WRITES_MAX:
            return False
        name = name_of(self._secret, _identity(ask))
        value = pack(self._secret, name, kept)

        async def write() -> None:
            await self._tried(self._store.set(name, value, ex=cache.kept_s + 1), WRITE_TIMEOUT_S)

        self._spawn(write())
        return True

    async def _tried(self, work: Any, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await work
        except (RedisError, OSError, TimeoutError, ValueError) as failure:
            if self._loop.time() >= self._not_before:
                logger.info("cache.left-alone: %s", type(failure).__name__)
            self._not_before = self._loop.time() + PAUSE_S
            return None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop what is under way."""
        for task in tuple(self._tasks):
            task.cancel()
        if isinstance(self._store, Redis):
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._store.aclose()


class _CachedAsk:
    """One ask under way."""

    def __init__(self, owner: ResponseCache, ask: Ask, cache: Cache, done: Done) -> None:
        self._owner, self._ask, self._cache, self._done = owner, ask, cache, done
        self._at = owner.clock()
        self._kept: KeptAnswer | None = None
        self._cancel: Cancel | None = None
        self._is_over = False

    async def begin(self) -> None:
        """Look what is kept, and go on to the shards unless that is fresh."""
        kept = self._kept = await self._owner.read(self._ask)
        if self._is_over:
            return
        reuse = self._ask.reuse
        assert reuse is not None
        if kept is not None and is_fresh(self._cache, self._age_s(kept)):
            self._use(kept)
            return
        reuse.note = b"shardpoint; fwd=miss" if kept is None else b"shardpoint; fwd=stale"
        if kept is not None:
            reuse.kept = kept.tags
        try:
            self._cancel = self._owner.forward(self._ask, self._on_outcome)
        except Exception:
            logger.exception("submit.failed", extra={"request_id": self._ask.request_id})
            self._finish(Internal())

    def give_up(self) -> None:
        """The client is gone."""
        self._is_over = True
        if self._cancel is not None:
            self._cancel()

    def _age_s(self, kept: KeptAnswer) -> float:
        return self._owner.clock() - kept.at

    def _use(self, kept: KeptAnswer) -> None:
        """Answer with what is kept, whatever its age."""
        reuse = self._ask.reuse
        assert reuse is not None
        reuse.tags = kept.tags
        reuse.age_s = int(self._age_s(kept))
        reuse.note = b"shardpoint; hit; ttl=%d" % (self._cache.max_age_s - reuse.age_s)
        self._finish(kept.outcome())

    def _on_outcome(self, outcome: Outcome) -> None:
        reuse, kept = self._ask.reuse, self._kept
        assert reuse is not None
        if isinstance(outcome, Problem):
            if kept is not None and may_stand_in(self._cache, self._age_s(kept), outcome):
                self._use(kept)
            else:
                self._finish(outcome)
            return
        if isinstance(outcome, Unchanged) and kept is not None and kept.tags == reuse.tags:
            # The shards say that what is kept is what they would answer: it is new again.
            outcome = kept.outcome()
            reuse.note += b"; fwd-status=304"
        fresh = kept_of(self._ask, outcome, self._at)
        if fresh is not None and self._owner.keep(self._ask, self._cache, fresh):
            reuse.note += b"; stored"
        self._finish(outcome)

    def _finish(self, outcome: Outcome) -> None:
        if not self._is_over:
            self._is_over = True
            self._done(outcome)


def _identity(ask: Ask) -> str:
    assert ask.reuse is not None
    return ask.reuse.identity
