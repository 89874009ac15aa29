"""Brings the meters of all fronts' workers together, through Redis, beside the requests.

Each worker tells the totals that it alone writes and reads those of the others, all keys that are
in use in one round trip per tick. Totals may be told again or be lost without harm, so no script
and no transaction is needed. No request waits for this: while Redis does not answer in time, or
holds nonsense, the workers count alone, each for its share of a limit, and never without a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from modeldefs.kit.key_quotas import Quotas
from modeldefs.wire.quotas import PROCESSES_MAX, Told

logger = logging.getLogger(__name__)

TICK_S = 0.15
TIMEOUT_S = 0.25
PAUSE_S = 1.0  # after a failure
USED_FOR_S = 2.0  # a key is kept current for so long after its last request
KEYS_PER_TICK = 500
FORGOTTEN_AFTER_S = 3_600
PROCESS_GONE_AFTER_S = 60.0
PROCESSES_KEY = "shardpoint:quota-processes"


def key_of(kid: str) -> str:
    """Return where the totals of a key are, by process."""
    return f"shardpoint:quota:{kid}"


class QuotaSync:
    """The reconciliation of one worker process."""

    def __init__(self, quotas: Quotas, *, url: str, processes: int) -> None:
        self._quotas = quotas
        self._url = url
        self._processes = self._processes_told = max(1, processes)
        self._name = secrets.token_hex(6)
        self._due: dict[str, float] = {}  # when each was last used, longest not told first
        self._client: Redis | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_together = True
        quotas.share = self._processes  # until the first round trip

    def start(self) -> None:
        """Begin to tell and to learn."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop, and be counted no more."""
        if self._task is not None:
            self._task.cancel()
        if self._client is not None and self._is_together:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(TIMEOUT_S):
                    await self._client.zrem(PROCESSES_KEY, self._name)
        await self._drop()

    async def _run(self) -> None:
        while True:
            try:
                pause_s = TICK_S if await self.tick() else PAUSE_S
            except Exception:
                logger.exception("quota.sync-failed")
                self._count_alone()
                pause_s = PAUSE_S
            await asyncio.sleep(pause_s)

    async def tick(self) -> bool:
        """Tell and learn once; False if that failed."""
        kids = self._chosen(self._quotas.clock())
        if not kids:
            return True
        meters = [self._quotas.by_kid[kid] for kid in kids]
        told = {kid: meter.tell().text() for kid, meter in zip(kids, meters, strict=True)}
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answers, processes = await self._exchange(told)
        except (RedisError, OSError, TimeoutError, ValueError) as failure:
            if self._is_together:
                logger.warning("quota.counting-alone: %s", type(failure).__name__)
            self._count_alone()
            await self._drop()
            return False
        if not self._is_together:
            logger.info("quota.counting-together")
            self._is_together = True
        self._quotas.share = 1
        self._processes_told = min(max(self._processes, processes), PROCESSES_MAX)
        now = self._quotas.clock()
        for meter, answer in zip(meters, answers, strict=True):
            meter.learn(self._others(answer), now, processes=self._processes_told)
        return True

    def _count_alone(self) -> None:
        self._is_together = False
        self._quotas.share = self._processes_told

    def _chosen(self, now: float) -> list[str]:
        by_kid, due = self._quotas.by_kid, self._due
        for kid in self._quotas.used:
            due[kid] = now
        self._quotas.used.clear()
        for kid, used_at in list(due.items()):
            meter = by_kid.get(kid)
            if meter is None or (now - used_at > USED_FOR_S and meter.is_idle):
                del due[kid]
        chosen = list(due)[:KEYS_PER_TICK]
        for kid in chosen:
            due[kid] = due.pop(kid)  # behind those that were not chosen
        return chosen

    async def _exchange(self, told: Mapping[str, str]) -> tuple[list[dict[bytes, bytes]], int]:
        if self._client is None:
            self._client = Redis.from_url(self._url, max_connections=1, retry=None)
        pipeline = self._client.pipeline(transaction=False)
        now = time.time()
        pipeline.zadd(PROCESSES_KEY, {self._name: now})
        pipeline.zremrangebyscore(PROCESSES_KEY, "-inf", now - PROCESS_GONE_AFTER_S)
        pipeline.zcard(PROCESSES_KEY)
        for kid, text in told.items():
            place = key_of(kid)
            pipeline.hset(place, self._name, text)
            pipeline.expire(place, FORGOTTEN_AFTER_S)
            pipeline.hgetall(place)
        answers: list[Any] = await pipeline.execute()
        return answers[5::3], int(answers[2])

    def _others(self, answer: Mapping[bytes, bytes]) -> dict[str, Told]:
        others = {}
        for name, text in answer.items():
            told = Told.parse(text)
            if told is not None and name != self._name.encode():
                others[name.decode("ascii", "replace")] = told
        return others

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(TIMEOUT_S):
                    await client.aclose()
