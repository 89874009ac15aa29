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
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from modeldefs.kit.key_quotas import Quotas
from modeldefs.wire.quotas import NEW_TELLINGS_MAX, OTHERS_MAX, PROCESSES_MAX, Told

logger = logging.getLogger(__name__)

TICK_S = 0.15
TIMEOUT_S = 0.25
PAUSE_S = 1.0  # after a failure
USED_FOR_S = 2.0  # a key is kept current for so long after its last request, and its last slot
KEYS_PER_TICK = 500
GONE_PER_TICK = 1_000  # names of processes that ended, taken out of Redis
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
        self._holding: set[str] = set()  # of which others may believe that we have slots
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
        told = {kid: meter.tell() for kid, meter in zip(kids, meters, strict=True)}
        self._holding.update(kid for kid, each in told.items() if each.in_flight)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answers, processes = await self._exchange(
                    {kid: each.text() for kid, each in told.items()}
                )
                await self._remove_gone(kids, answers, processes)
        except (RedisError, OSError, TimeoutError, ValueError) as failure:
            if self._is_together:
                logger.warning("quota.counting-alone: %s", type(failure).__name__)
            self._count_alone()
            await self._drop()
            return False
        self._holding.difference_update(kid for kid, each in told.items() if not each.in_flight)
        self._processes_told = min(max(self._processes, len(processes)), PROCESSES_MAX)
        now = self._quotas.clock()
        for meter, answer in zip(meters, answers, strict=True):
            others = self._others(answer, processes)
            meter.learn(others, now, processes=self._processes_told)
        if len(processes) > OTHERS_MAX:
            self._count_alone()  # more than a meter can tell apart
            return True
        if not self._is_together:
            logger.info("quota.counting-together")
            self._is_together = True
        self._quotas.share = 1
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
            if meter is None:
                self._holding.discard(kid)
                del due[kid]
            elif now - used_at > USED_FOR_S and meter.is_idle and kid not in self._holding:
                del due[kid]
        chosen = list(due)[:KEYS_PER_TICK]
        for kid in chosen:
            due[kid] = due.pop(kid)  # behind those that were not chosen
        return chosen

    async def _exchange(
        self, told: Mapping[str, str]
    ) -> tuple[list[dict[bytes, bytes]], frozenset[bytes]]:
        if self._client is None:
            self._client = Redis.from_url(self._url, max_connections=1, retry=None)
        pipeline = self._client.pipeline(transaction=False)
        now = time.time()
        pipeline.zadd(PROCESSES_KEY, {self._name: now})
        pipeline.zremrangebyscore(PROCESSES_KEY, "-inf", now - PROCESS_GONE_AFTER_S)
        pipeline.zrange(PROCESSES_KEY, 0, -1)
        for kid, text in told.items():
            place = key_of(kid)
            pipeline.hset(place, self._name, text)
            pipeline.expire(place, FORGOTTEN_AFTER_S)
            pipeline.hgetall(place)
        answers: list[Any] = await pipeline.execute()
        return answers[5::3], frozenset(answers[2])

    async def _remove_gone(
        self,
        kids: Sequence[str],
        answers: Sequence[Mapping[bytes, bytes]],
        processes: frozenset[bytes],
    ) -> None:
        # Only where there are many: one that has been quiet for a while is not gone for good.
        gone = [
            (kid, name)
            for kid, answer in zip(kids, answers, strict=True)
            if len(answer) > PROCESSES_MAX
            for name in answer
            if name not in processes
        ]
        if gone and self._client is not None:
            pipeline = self._client.pipeline(transaction=False)
            for kid, name in gone[:GONE_PER_TICK]:
                pipeline.hdel(key_of(kid), name)
            await pipeline.execute()

    def _others(
        self, answer: Mapping[bytes, bytes], processes: frozenset[bytes]
    ) -> dict[str, Told]:
        is_crowded = len(answer) > PROCESSES_MAX
        others: dict[str, Told] = {}
        for name, text in answer.items():
            told = Told.parse(text)
            if told is None or name == self._name.encode():
                continue
            if name not in processes:
                if is_crowded:
                    continue
                # Who has slots goes on telling; and what it used, if we never met it, is long ago.
                told = told._replace(in_flight=0, telling=NEW_TELLINGS_MAX + 1)
            others[name.decode("ascii", "replace")] = told
            if len(others) >= OTHERS_MAX:
                break
        return others

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(TIMEOUT_S):
                    await client.aclose()
