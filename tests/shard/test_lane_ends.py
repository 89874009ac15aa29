"""Lanes on a real Postgres: nobody waits any more, the backend hangs, memory is bounded."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import uvloop

from engine.databases import PostgresServer
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lanes import Lane, LaneLimits
from tests.shard.test_lanes import LIMITS, PATIENCE_S, Answer, execute, pid_of, ready, send

SLEEPING = "SELECT pid FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"


def on_lane(
    dsn: str, body: Callable[[LanePool, Lane], Awaitable[None]], limits: LaneLimits = LIMITS
) -> None:
    """Run a test on a pool of one lane."""

    async def run() -> None:
        pool = LanePool(dsn, 1, limits)
        await pool.open()
        lane = pool.pick()
        assert lane is not None
        try:
            await asyncio.wait_for(body(pool, lane), 3 * PATIENCE_S)
        finally:
            await pool.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def _sleeping(dsn: str, pid: bytes, *, is_so: bool) -> None:
    """Wait until a backend runs its long statement, or does so no more."""
    async with asyncio.timeout(PATIENCE_S):
        while bool(await asyncio.to_thread(execute, dsn, SLEEPING, int(pid))) is not is_so:
            await asyncio.sleep(0)


def test_what_is_given_up_ends_in_the_backend(dsn: str) -> None:
    """When nobody waits any more, long before the deadline, the statement is cancelled: the
    backend is free, and the next statement has it."""

    async def body(pool: LanePool, lane: Lane) -> None:
        pid = await pid_of(lane)
        answer = Answer()
        give_up = lane.send(
            name=b"long", sql=b"SELECT pg_sleep(600)", params=[],
            deadline=asyncio.get_running_loop().time() + 600, done=answer,
        )  # fmt: skip
        await _sleeping(dsn, pid, is_so=True)
        give_up()
        await answer.wait()
        await _sleeping(dsn, pid, is_so=False)

        assert ("57014", 1) == (answer.code, answer.count)
        assert pid == await pid_of(lane)

    on_lane(dsn, body)


def test_what_is_given_up_before_it_left_harms_nobody(dsn: str) -> None:
    """It is run or cancelled; its neighbours in the batch are answered."""

    async def body(pool: LanePool, lane: Lane) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        given_up = Answer()
        before = send(lane, "SELECT 1")
        lane.send(name=b"g", sql=b"SELECT 2", params=[], deadline=deadline, done=given_up)()
        behind = send(lane, "SELECT 3")
        for answer in (before, given_up, behind):
            await answer.wait()

        assert ([b"1"], [b"3"]) == (before.values, behind.values)
        assert given_up.values == [b"2"] or given_up.code == "57014"

    on_lane(dsn, body)


def test_a_backend_that_hangs_is_dropped(dsn: str) -> None:
    """A stopped backend heeds no cancel: the lane lets go of it, answers those that wait, and
    goes on with another one."""
    limits = replace(LIMITS, unanswered_s=0.05)

    async def body(pool: LanePool, lane: Lane) -> None:
        pid = await pid_of(lane)
        os.kill(int(pid), signal.SIGSTOP)
        try:
            late = send(lane, "SELECT 1", deadline_s=0.02)
            behind = send(lane, "SELECT 2")
            await late.wait()
            await behind.wait()
            other = await pid_of(await ready(pool))
        finally:
            os.kill(int(pid), signal.SIGCONT)

        assert ["08006", "08006"] == [late.code, behind.code]
        assert [True, True] == [answer.errors[0].was_sent for answer in (late, behind)]
        assert {1} == {late.count, behind.count}
        assert other != pid

    on_lane(dsn, body, limits)


@pytest.mark.parametrize("most", [1, 7])
def test_prepared_statements_are_bounded(dsn: str, most: int) -> None:
    """Clients choose which statements there are: a connection keeps so many and no more, and
    every statement is answered, failed ones among them, also when it comes back."""
    limits = replace(LIMITS, prepared_max=most)

    async def body(pool: LanePool, lane: Lane) -> None:
        pid = await pid_of(lane)
        for _ in range(2):
            answers = []
            for number in range(4 * most):
                answers.append(send(lane, f"SELECT {number}"))
                answers.append(send(lane, f"SELECT {number} / 0"))
            for answer in answers:
                await answer.wait()
            right, wrong = answers[::2], answers[1::2]
            held = await send(lane, "SELECT count(*) FROM pg_prepared_statements").wait()

            assert [[str(n).encode()] for n in range(4 * most)] == [a.values for a in right]
            assert {"22012"} == {answer.code for answer in wrong}
            assert int(held.values[0]) <= most
        assert pid == await pid_of(lane)

    on_lane(dsn, body, limits)


def test_a_node_keeps_a_thousand(dsn: str) -> None:
    """The default is what the docs of performance count with."""
    assert LaneLimits().prepared_max == 1_000


def test_a_lane_waits_for_a_server_that_comes_back(
    dsn: str, postgres_server: PostgresServer
) -> None:
    """A worker that starts while Postgres recovers connects as soon as that takes connections."""
    name = f"late_{uuid.uuid4().hex[:12]}"

    async def run() -> None:
        limits = replace(LIMITS, open_patience_s=PATIENCE_S)
        pool = LanePool(postgres_server.dsn(name), 1, limits)
        opening = asyncio.ensure_future(pool.open())
        await asyncio.to_thread(postgres_server.ensure_database, name)
        await opening
        lane = pool.pick()
        assert lane is not None
        try:
            assert [b"1"] == (await send(lane, "SELECT 1").wait()).values
        finally:
            await pool.close()
            await asyncio.to_thread(postgres_server.drop_database, name)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_a_pool_says_why_it_takes_nothing(dsn: str) -> None:
    """Full lanes are too much to do; lost ones are a shard whose Postgres is away."""

    async def body(pool: LanePool, lane: Lane) -> None:
        send(lane, "SELECT 1")

        assert pool.pick() is None
        assert "overloaded" == pool.refusal("s1").code
        await pool.close()
        assert pool.pick() is None
        lost = pool.refusal("s1")
        assert ("shard-unavailable", True) == (lost.code, lost.retryable)
        assert [("s1", "recovering")] == [(fault.id, fault.code) for fault in lost.shards]

    on_lane(dsn, body, replace(LIMITS, in_flight_max=1))
