"""Workers learn of each other's counts through Redis, and count alone without it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Iterator

import pytest
from redis import Redis

from dispatcher_site.gateway.quota_sync import PROCESSES_KEY, USED_FOR_S, QuotaSync, key_of
from modeldefs.kit.key_quotas import Quotas
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import QuotaExceeded
from modeldefs.wire.quotas import OTHERS_MAX, PROCESSES_MAX, KeyLimits

LIMITS = KeyLimits(rate=10, window_s=60, concurrency=3)


class Worker:
    """One worker process, as far as limits go."""

    def __init__(self, url: str, kid: str, *, processes: int = 2) -> None:
        self.now = 100.0
        self.quotas = Quotas(clock=lambda: self.now)
        self.sync = QuotaSync(self.quotas, url=url, processes=processes)
        self._principal = Principal(kid, "o", ("*",), "live", "data", LIMITS)

    def call(self, *, units: int = 1) -> bool:
        """Begin calls; say whether all were admitted."""
        try:
            for _ in range(units):
                metered = self.quotas.begin(self._principal, lambda reply: None)
                metered.admit()
                metered.release()
        except QuotaExceeded:
            return False
        return True

    def hold(self, calls: int) -> None:
        """Begin calls that stay under way."""
        for _ in range(calls):
            self.quotas.begin(self._principal, lambda reply: None).admit()


@pytest.fixture
def kid(redis_url: str) -> str:
    """Return a key that no other test uses; no worker of another test counts as one."""
    with Redis.from_url(redis_url) as redis:
        redis.delete(PROCESSES_KEY)
    return secrets.token_hex(5)


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Return the URL of a Redis that takes connections and says nothing, as a stopped one does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def test_two_workers_share_one_limit(redis_url: str, kid: str) -> None:
    """What the one used the other has not, a tick after; and slots in use are everybody's."""

    async def play() -> None:
        one, two = Worker(redis_url, kid), Worker(redis_url, kid)
        try:
            assert one.call()
            assert two.call()
            for worker in (one, two, one, two):
                assert await worker.sync.tick()
            assert (1, 1) == (one.quotas.share, two.quotas.share)
            assert one.call(units=5)
            one.hold(2)
            for worker in (one, two):
                assert await worker.sync.tick()

            two.hold(1)
            assert not two.call()  # a fourth at once
            assert 0 == two.quotas.by_kid[kid].left(two.now)[0]
        finally:
            await one.sync.stop()
            await two.sync.stop()

    asyncio.run(play())


def test_a_silent_redis_makes_workers_count_alone(silent_url: str, kid: str) -> None:
    """A Redis that hangs is given up; each worker has its share, at once and without a wait."""

    async def play() -> None:
        worker = Worker(silent_url, kid)
        worker.quotas.share = 1
        try:
            assert worker.call(units=2)
            assert not await worker.sync.tick()
            assert 2 == worker.quotas.share
            assert worker.call(units=4)
            assert not worker.call()
        finally:
            await worker.sync.stop()

    asyncio.run(play())


def test_a_redis_that_comes_back_brings_them_together(
    redis_url: str, silent_url: str, kid: str
) -> None:
    """After an outage the totals of before and during it are known to all, and counted once."""

    async def play() -> None:
        one, two = Worker(redis_url, kid), Worker(redis_url, kid)
        try:
            one.call(), two.call()
            for worker in (one, two, one, two):
                assert await worker.sync.tick()
            one.sync._url, good = silent_url, one.sync._url
            await one.sync._drop()
            assert one.call(units=2)
            assert not await one.sync.tick()
            one.sync._url = good
            for worker in (one, two, one, two):
                assert await worker.sync.tick()

            assert 1 == one.quotas.share
            assert 6 == two.quotas.by_kid[kid].left(two.now)[0]
        finally:
            await one.sync.stop()
            await two.sync.stop()

    asyncio.run(play())


def test_nonsense_in_redis_opens_nothing_and_breaks_nothing(redis_url: str, kid: str) -> None:
    """Values that no worker wrote are passed over; a key of another type: counting alone."""

    async def play() -> None:
        worker = Worker(redis_url, kid)
        with Redis.from_url(redis_url) as redis:
            redis.hset(key_of(kid), mapping={"x": "-5:0:1", "y": "many", "z": ""})
            try:
                assert worker.call(units=4)
                assert await worker.sync.tick()
                assert 2 == worker.quotas.by_kid[kid].left(worker.now)[0]  # counted twice alone
                redis.delete(key_of(kid))
                redis.set(key_of(kid), "text")
                assert not await worker.sync.tick()
                assert 2 == worker.quotas.share
                assert worker.call()
            finally:
                await worker.sync.stop()
                redis.delete(key_of(kid))

    asyncio.run(play())


def test_a_worker_that_stops_is_counted_no_more(redis_url: str, kid: str) -> None:
    """The shares of the others do not shrink with every restart."""

    async def play() -> None:
        for _ in range(3):
            worker = Worker(redis_url, kid)
            assert worker.call()
            assert await worker.sync.tick()
            await worker.sync.stop()

    asyncio.run(play())
    with Redis.from_url(redis_url) as redis:
        assert 0 == redis.zcard(PROCESSES_KEY)


def test_keys_at_rest_cost_no_round_trip(silent_url: str, kid: str) -> None:
    """Without a limited key in use Redis is not even asked."""

    async def play() -> None:
        worker = Worker(silent_url, kid)
        assert await worker.sync.tick()
        assert worker.call()
        worker.now += 1
        worker.sync._chosen(worker.now)
        worker.now += 3
        assert await worker.sync.tick()

    asyncio.run(play())


def test_a_slot_that_was_given_back_is_told_before_its_key_is_dropped(
    redis_url: str, kid: str
) -> None:
    """A call that outlasts the key's last use leaves no slot behind that nobody holds: the next
    worker to meet the key, long after, refuses nothing for it."""

    async def play() -> None:
        one, two = Worker(redis_url, kid), Worker(redis_url, kid)
        try:
            assert one.call()
            assert await one.sync.tick()
            one.hold(3)
            assert await one.sync.tick()
            one.now += USED_FOR_S + 1
            assert await one.sync.tick()
            one.quotas.by_kid[kid].in_flight = 0
            for _ in range(3):
                assert await one.sync.tick()
                one.now += USED_FOR_S + 1
            assert not one.sync._due

            assert two.call()
            assert await two.sync.tick()
            assert two.call()
            assert 0 == two.quotas.by_kid[kid].others_in_flight
        finally:
            await one.sync.stop()
            await two.sync.stop()

    asyncio.run(play())


def test_slots_of_a_worker_that_ended_are_nobody_s(redis_url: str, kid: str) -> None:
    """What a worker that is gone said last takes no slot from who meets the key afresh."""

    async def play() -> None:
        worker = Worker(redis_url, kid)
        with Redis.from_url(redis_url) as redis:
            redis.hset(key_of(kid), "gone", "5:3:9")
            try:
                assert worker.call()
                assert await worker.sync.tick()
                assert worker.call()
            finally:
                await worker.sync.stop()
                redis.delete(key_of(kid))

    asyncio.run(play())


def test_limits_stay_shared_whatever_number_of_workers_came_and_went(
    redis_url: str, kid: str
) -> None:
    """After more workers than a meter keeps apart those that live still share the limit, and
    what the others told leaves Redis."""

    async def play() -> None:
        one, two = Worker(redis_url, kid), Worker(redis_url, kid)
        with Redis.from_url(redis_url) as redis:
            redis.hset(key_of(kid), mapping={f"gone{n}": "1:0:1" for n in range(OTHERS_MAX + 99)})
            try:
                assert one.call()
                assert two.call()
                for worker in (one, two, one, two):
                    assert await worker.sync.tick()
                assert one.call(units=5)
                for worker in (one, two):
                    assert await worker.sync.tick()

                assert 1 == two.quotas.share
                assert 3 == two.quotas.by_kid[kid].left(two.now)[0]
                assert redis.hlen(key_of(kid)) <= PROCESSES_MAX
            finally:
                await one.sync.stop()
                await two.sync.stop()
                redis.delete(key_of(kid))

    asyncio.run(play())


def test_more_workers_than_can_be_told_apart_count_alone(redis_url: str, kid: str) -> None:
    """Too many that live: each counts for its share, and none without a limit."""

    async def play() -> None:
        worker = Worker(redis_url, kid)
        with Redis.from_url(redis_url) as redis:
            names = {f"w{n}": time.time() for n in range(OTHERS_MAX + 1)}
            redis.zadd(PROCESSES_KEY, names)
            try:
                assert worker.call()
                assert await worker.sync.tick()

                assert PROCESSES_MAX == worker.quotas.share
                assert not worker.call()
            finally:
                await worker.sync.stop()
                redis.delete(PROCESSES_KEY, key_of(kid))

    asyncio.run(play())
