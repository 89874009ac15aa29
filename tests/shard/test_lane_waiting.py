"""What happens when the lanes of a pool are full: a short wait, then a refusal."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop

from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lane_statements import LANE_COLUMNS
from shardnode.runtime.lanes import Lane, LaneError, LaneLimits

PATIENCE_S = 20.0


class Calls:
    """Calls of one pool, and in which order what became of them was told."""

    def __init__(self, pool: LanePool, expected: int) -> None:
        self.pool = pool
        self.told: list[str] = []
        self.all_told = asyncio.get_running_loop().create_future()
        self._expected = expected

    def ask(self, name: str, sql: str, *, time_s: float = PATIENCE_S) -> Any:
        """Send a statement, at once or when its turn has come."""
        deadline = asyncio.get_running_loop().time() + time_s

        def ended(result: Any, error: LaneError | None) -> None:
            self._tell(f"{name} {'failed' if error else 'done'}")

        def go(lane: Lane) -> Any:
            return lane.send(
                name=name.encode(), sql=sql.encode(), params=[], deadline=deadline, done=ended
            )

        lane = self.pool.pick()
        if lane is not None:
            return go(lane)
        return self.pool.wait(deadline, go, lambda: self._tell(f"{name} refused"))

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if len(self.told) == self._expected:
            self.all_told.set_result(None)

    async def wait(self) -> list[str]:
        """Return what was told once every call has been."""
        await asyncio.wait_for(self.all_told, PATIENCE_S)
        return self.told

    def counted(self) -> dict[str, int]:
        """Return the pool's numbers by name."""
        row = [0] * len(LANE_COLUMNS)
        self.pool.fill(row)
        return dict(zip(LANE_COLUMNS, row, strict=True))


async def _opened(dsn: str, **limits: Any) -> LanePool:
    pool = LanePool(dsn, 1, LaneLimits(in_flight_max=1, watch_s=0.01, **limits))
    await pool.open()
    return pool


def test_who_waits_is_served_in_the_order_they_came(dsn: str) -> None:
    """With room for one at a time five calls are all answered, one after the other."""

    async def scenario() -> tuple[list[str], dict[str, int]]:
        pool = await _opened(dsn, wait_s=PATIENCE_S)
        calls = Calls(pool, 5)
        for number in range(5):
            calls.ask(f"c{number}", "SELECT 1", time_s=4 * PATIENCE_S)
        told = await calls.wait()
        counted = calls.counted()
        await pool.close()
        return told, counted

    told, counted = uvloop.run(scenario())

    assert [f"c{number} done" for number in range(5)] == told
    assert (5, 4, 0) == (counted["statements"], counted["waited"], counted["refused"])


def test_who_waits_too_long_is_refused_and_never_runs(dsn: str) -> None:
    """Behind a statement that holds the only place, calls are refused after their wait, a call
    without time at once; none of them reaches Postgres, and the lane serves again afterwards."""

    async def scenario() -> tuple[list[str], dict[str, int], list[str]]:
        pool = await _opened(dsn, wait_s=0.05)
        calls = Calls(pool, 2)
        holder = Calls(pool, 1)
        give_up = holder.ask("holder", "SELECT pg_sleep(60)")
        calls.ask("late", "SELECT 1", time_s=4 * PATIENCE_S)
        calls.ask("hopeless", "SELECT 1", time_s=-1.0)
        told = list(await calls.wait())
        counted = calls.counted()
        give_up()
        await holder.wait()
        after = Calls(pool, 1)
        after.ask("after", "SELECT 1")
        served = await after.wait()
        await pool.close()
        return told, counted, served

    told, counted, served = uvloop.run(scenario())

    assert ["hopeless refused", "late refused"] == told
    assert (1, 2) == (counted["statements"], counted["refused"])
    assert ["after done"] == served


def test_a_call_that_was_given_up_while_it_waited_never_runs(dsn: str) -> None:
    """Giving up takes a call out of the line; the one behind it is served."""

    async def scenario() -> tuple[list[str], dict[str, int]]:
        pool = await _opened(dsn, wait_s=PATIENCE_S)
        calls = Calls(pool, 3)
        calls.ask("first", "SELECT pg_sleep(0.1)", time_s=4 * PATIENCE_S)
        give_up = calls.ask("second", "SELECT 1", time_s=4 * PATIENCE_S)
        calls.ask("third", "SELECT 1", time_s=4 * PATIENCE_S)
        give_up()
        told = await calls.wait()
        counted = calls.counted()
        await pool.close()
        return told, counted

    told, counted = uvloop.run(scenario())

    assert {"first done", "second refused", "third done"} == set(told)
    assert 2 == counted["statements"]


def test_a_pool_that_closes_refuses_who_waits(dsn: str) -> None:
    """Nobody is left without an answer when the worker stops."""

    async def scenario() -> list[str]:
        pool = await _opened(dsn, wait_s=PATIENCE_S)
        calls = Calls(pool, 2)
        calls.ask("holder", "SELECT pg_sleep(60)")
        calls.ask("waiter", "SELECT 1", time_s=4 * PATIENCE_S)
        await pool.close()
        return await calls.wait()

    assert ["waiter refused", "holder failed"] == uvloop.run(scenario())
