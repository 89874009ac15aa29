"""Lanes on a real Postgres: every statement is answered once, whatever happens to the lane."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
import uvloop

from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lanes import Lane, LaneError, LaneLimits

LIMITS = LaneLimits(
    reconnect_first_s=0.01,
    reconnect_max_s=0.05,
    cancel_grace_s=0.01,
    watch_s=0.01,
    open_patience_s=0.05,
)
PATIENCE_S = 20.0
SLOW = "SELECT pg_sleep(30)"


class Answer:
    """What came of one statement."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.errors: list[LaneError] = []
        self._came: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __call__(self, result: Any, error: LaneError | None) -> None:
        """Take an answer; a second one is kept too, so that a test can see it."""
        if error is not None:
            self.errors.append(error)
        else:
            self.values.append(result.get_value(0, 0) if result.ntuples else None)
        if not self._came.done():
            self._came.set_result(None)

    async def wait(self) -> Answer:
        """Wait until it came."""
        await asyncio.wait_for(asyncio.shield(self._came), PATIENCE_S)
        return self

    @property
    def count(self) -> int:
        """How often it was answered."""
        return len(self.values) + len(self.errors)

    @property
    def code(self) -> str:
        """The SQLSTATE of the refusal."""
        (error,) = self.errors
        return error.sqlstate


def send(
    lane: Lane, sql: str, *params: str | None, name: str = "", deadline_s: float = PATIENCE_S
) -> Answer:
    """Send a statement down a lane."""
    answer = Answer()
    lane.send(
        name=(name or sql).encode()[:40],
        sql=sql.encode(),
        params=[None if param is None else param.encode() for param in params],
        deadline=asyncio.get_running_loop().time() + deadline_s,
        done=answer,
    )
    return answer


def on_lanes(
    dsn: str, body: Callable[[LanePool, Lane], Awaitable[None]], *, size: int = 1
) -> None:
    """Run a test on an open pool, and close it."""

    async def run() -> None:
        pool = LanePool(dsn, size, LIMITS)
        await pool.open()
        lane = pool.pick()
        assert lane is not None
        try:
            await asyncio.wait_for(body(pool, lane), 3 * PATIENCE_S)
        finally:
            await pool.close()

    # The loop of the workers; it must forget a socket that libpq has closed already.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def execute(dsn: str, sql: str, *params: Any) -> Any:
    """Run one statement on another connection."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


async def ready(pool: LanePool) -> Lane:
    """Wait until a lane of the pool takes statements again."""
    async with asyncio.timeout(PATIENCE_S):
        while (lane := pool.pick()) is None:
            await asyncio.sleep(0)
    return lane


async def kill_backend(dsn: str, pid: bytes) -> None:
    """Terminate a connection from outside, as an operator would."""
    await asyncio.to_thread(execute, dsn, "SELECT pg_terminate_backend(%s)", int(pid))


async def pid_of(lane: Lane) -> bytes:
    """Return the process id of a lane's connection."""
    (pid,) = (await send(lane, "SELECT pg_backend_pid()::text").wait()).values
    assert isinstance(pid, bytes)
    return pid


def test_many_in_flight_are_answered_in_order(dsn: str) -> None:
    """Two hundred statements go out at once; each gets its own answer, once, in order."""

    async def body(pool: LanePool, lane: Lane) -> None:
        order: list[int] = []
        answers = [send(lane, "SELECT $1::text", str(number)) for number in range(200)]
        for number, answer in enumerate(answers):
            await answer.wait()
            order.append(number)

        assert [[str(number).encode()] for number in order] == [a.values for a in answers]
        assert {1} == {answer.count for answer in answers}
        assert 0 == lane.in_flight

    on_lanes(dsn, body)


def test_parameters_and_nulls(dsn: str) -> None:
    """Parameters travel as text, NULL as NULL."""

    async def body(pool: LanePool, lane: Lane) -> None:
        text = await send(lane, "SELECT $1::text", "it's ä😀 \\ %").wait()
        null = await send(lane, "SELECT ($1::text IS NULL)::text", None).wait()

        assert ["it's ä😀 \\ %".encode()] == text.values
        assert [b"true"] == null.values

    on_lanes(dsn, body)


def test_an_error_is_its_statement_s_own(dsn: str) -> None:
    """A statement that fails takes no other with it, before or behind."""

    async def body(pool: LanePool, lane: Lane) -> None:
        answers = [
            send(lane, "SELECT 1/$1::int", divisor) for divisor in ("1", "0", "1", "x", "1")
        ]
        for answer in answers:
            await answer.wait()

        assert ["22012", "22P02"] == [answers[1].code, answers[3].code]
        assert [[b"1"]] * 3 == [answers[n].values for n in (0, 2, 4)]
        assert {1} == {answer.count for answer in answers}

    on_lanes(dsn, body)


def test_a_statement_that_cannot_be_prepared_harms_no_other(dsn: str) -> None:
    """What Postgres does not understand is refused each time, and the others go on."""

    async def body(pool: LanePool, lane: Lane) -> None:
        good = await send(lane, "SELECT 5::text", name="good").wait()
        bad = [send(lane, "SELECT nothing", name="bad") for _ in range(3)]
        behind = send(lane, "SELECT 5::text", name="good")
        later = send(lane, "SELECT 6::text", name="other")
        for answer in (*bad, behind, later):
            await answer.wait()
        again = await send(lane, "SELECT nothing", name="bad").wait()
        last = await send(lane, "SELECT 5::text", name="good").wait()

        assert ["42703"] * 4 == [answer.code for answer in (*bad, again)]
        assert [[b"5"], [b"5"], [b"6"], [b"5"]] == [
            answer.values for answer in (good, behind, later, last)
        ]

    on_lanes(dsn, body)


def test_a_broken_callback_stops_nothing(dsn: str) -> None:
    """A callback that raises costs no other statement its answer."""

    async def body(pool: LanePool, lane: Lane) -> None:
        def broken(result: Any, error: LaneError | None) -> None:
            raise ValueError("broken")

        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        lane.send(name=b"b", sql=b"SELECT 1", params=[], deadline=deadline, done=broken)

        assert [b"2"] == (await send(lane, "SELECT 2").wait()).values

    on_lanes(dsn, body)


def test_a_late_statement_is_cancelled_and_frees_the_lane(dsn: str) -> None:
    """At its deadline the running statement ends; those behind it are answered as if nothing
    had happened.
    """

    async def body(pool: LanePool, lane: Lane) -> None:
        late = send(lane, SLOW, deadline_s=0.05)
        behind = [send(lane, "SELECT $1::text", str(number)) for number in range(20)]
        for answer in (late, *behind):
            await answer.wait()

        assert "57014" == late.code
        assert [[str(number).encode()] for number in range(20)] == [a.values for a in behind]
        assert {1} == {answer.count for answer in (late, *behind)}

    on_lanes(dsn, body)


def test_a_cancel_that_hits_another_is_repeated(dsn: str) -> None:
    """A cancel from outside, meant for another statement, costs nobody an answer."""

    async def body(pool: LanePool, lane: Lane) -> None:
        pid = await pid_of(lane)
        await asyncio.to_thread(execute, dsn, "CREATE TABLE IF NOT EXISTS seen (n int)")
        victim = send(lane, "SELECT count(*)::text FROM seen, pg_sleep(0.3)")
        query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        while await asyncio.to_thread(execute, dsn, query, int(pid)) != [(1,)]:
            await asyncio.sleep(0)
        await asyncio.to_thread(execute, dsn, "SELECT pg_cancel_backend(%s)", int(pid))
        await victim.wait()

        assert ([b"0"], 1) == (victim.values, victim.count)

    on_lanes(dsn, body)


def test_a_killed_connection_fails_each_statement_once(dsn: str) -> None:
    """What was in flight fails at once; the lane connects again by itself and goes on."""

    async def body(pool: LanePool, lane: Lane) -> None:
        pid = await pid_of(lane)
        answers = [send(lane, SLOW), *(send(lane, "SELECT 1") for _ in range(10))]
        await kill_backend(dsn, pid)
        for answer in answers:
            await answer.wait()
        again = await send(await ready(pool), "SELECT 1").wait()

        assert {"57P01", "08006"} >= {answer.code for answer in answers}
        assert {1} == {answer.count for answer in answers}
        assert [b"1"] == again.values
        assert pid != await pid_of(lane)

    on_lanes(dsn, body)


def test_an_idle_connection_that_is_killed_comes_back(dsn: str) -> None:
    """A lane that had nothing to do when its connection died is ready again by itself."""

    async def body(pool: LanePool, lane: Lane) -> None:
        pid = await pid_of(lane)
        await kill_backend(dsn, pid)
        async with asyncio.timeout(PATIENCE_S):
            answer = await send(await ready(pool), "SELECT pg_backend_pid()::text").wait()
            while answer.errors or answer.values == [pid]:
                answer = await send(await ready(pool), "SELECT pg_backend_pid()::text").wait()

        assert pid not in answer.values

    on_lanes(dsn, body)


def test_a_changed_table_is_healed_once(dsn: str) -> None:
    """A prepared statement whose result changed its type is prepared anew, unseen."""

    async def body(pool: LanePool, lane: Lane) -> None:
        await asyncio.to_thread(execute, dsn, "CREATE TABLE changed (n int)")
        await asyncio.to_thread(execute, dsn, "INSERT INTO changed VALUES (7)")
        before = await send(lane, "SELECT * FROM changed").wait()
        await asyncio.to_thread(execute, dsn, "ALTER TABLE changed ALTER n TYPE text")
        answers = [send(lane, "SELECT * FROM changed") for _ in range(5)]
        for answer in answers:
            await answer.wait()

        assert [b"7"] == before.values
        assert [[b"7"]] * 5 == [answer.values for answer in answers]
        assert {1} == {answer.count for answer in answers}

    on_lanes(dsn, body)


def test_closing_answers_what_is_in_flight(dsn: str) -> None:
    """A pool that closes leaves nobody waiting, and a closed lane refuses at once."""

    async def body(pool: LanePool, lane: Lane) -> None:
        running = [send(lane, SLOW), send(lane, "SELECT 1")]
        await pool.close()
        late = send(lane, "SELECT 1")
        for answer in (*running, late):
            await answer.wait()

        assert ["08006"] * 3 == [answer.code for answer in (*running, late)]
        assert {1} == {answer.count for answer in (*running, late)}
        assert pool.pick() is None

    on_lanes(dsn, body)


def test_full_lanes_are_not_picked(dsn: str) -> None:
    """A tick's statements share a lane, the next tick's take the least loaded; full ones none."""

    async def body(pool: LanePool, lane: Lane) -> None:
        other = pool.pick()
        held = [send(lane, "SELECT pg_sleep(0.2)")]
        boarding = pool.pick()
        await asyncio.sleep(0)
        emptier = pool.pick()
        while (free := pool.pick()) is not None:
            held.append(send(free, "SELECT 1"))

        assert other is lane
        assert boarding is lane
        assert emptier is not lane
        assert 2 * LIMITS.in_flight_max == len(held)
        for answer in held:
            assert not (await answer.wait()).errors

    on_lanes(dsn, body, size=2)


def test_session_is_the_one_that_wire_forms_need(dsn: str) -> None:
    """Durations are ISO 8601 and moments UTC, whatever the server's own settings."""

    async def body(pool: LanePool, lane: Lane) -> None:
        span = await send(lane, "SELECT interval '26 hours 1.5 seconds'").wait()
        zone = await send(lane, "SHOW timezone").wait()

        assert ([b"PT26H1.5S"], [b"UTC"]) == (span.values, zone.values)

    on_lanes(dsn, body)


def test_first_connection_must_work(dsn: str) -> None:
    """A node whose database cannot be reached says so when it starts."""

    async def run() -> None:
        pool = LanePool(dsn.replace("/own_", "/nothing_"), 1, LIMITS)
        with pytest.raises(ConnectionError, match="does not exist"):
            await pool.open()

    asyncio.run(run())


def on_committing_lane(dsn: str, body: Callable[[Lane], Awaitable[None]]) -> None:
    """Run a test on a lane that answers after the commit."""

    async def run() -> None:
        pool = LanePool(dsn, 1, LIMITS, commits=True)
        await pool.open()
        lane = pool.pick()
        assert lane is not None
        try:
            await asyncio.wait_for(body(lane), 3 * PATIENCE_S)
        finally:
            await pool.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def table_of(dsn: str, definition: str) -> str:
    """Make a table and return its name."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    execute(dsn, f"CREATE TABLE {name} ({definition})")
    return name


def test_writes_of_a_tick_share_a_commit(dsn: str) -> None:
    """Writes that are sent in one tick are one transaction, durable when the first is answered."""
    table = table_of(dsn, "n int, x text DEFAULT pg_current_xact_id()::text")

    async def body(lane: Lane) -> None:
        insert = f"INSERT INTO {table} (n) VALUES ($1::int) RETURNING n"
        answers = [send(lane, insert, str(number)) for number in range(20)]
        await answers[0].wait()
        stored = await asyncio.to_thread(execute, dsn, f"SELECT n, x FROM {table} ORDER BY n")
        for answer in answers:
            await answer.wait()

        assert list(range(20)) == [row[0] for row in stored]
        assert 1 == len({row[1] for row in stored})
        assert [[str(n).encode()] for n in range(20)] == [answer.values for answer in answers]

    on_committing_lane(dsn, body)


@pytest.mark.parametrize("deferred", [False, True])
def test_a_write_that_fails_takes_no_other_with_it(dsn: str, deferred: bool) -> None:
    """One write of a batch breaks a constraint, at once or at the commit: the rest are stored,
    each once, and only that one is refused.
    """
    when = "DEFERRABLE INITIALLY DEFERRED" if deferred else ""
    table = table_of(dsn, f"n int, UNIQUE (n) {when}")
    execute(dsn, f"INSERT INTO {table} VALUES (7)")

    async def body(lane: Lane) -> None:
        insert = f"INSERT INTO {table} (n) VALUES ($1::int) RETURNING n"
        answers = [send(lane, insert, str(number)) for number in range(10)]
        for answer in answers:
            await answer.wait()
        stored = await asyncio.to_thread(execute, dsn, f"SELECT n FROM {table} ORDER BY n")

        assert list(range(10)) == [row[0] for row in stored]
        assert "23505" == answers[7].code
        assert {1} == {answer.count for answer in answers}
        assert 0 == lane.in_flight

    on_committing_lane(dsn, body)


def test_nothing_is_said_to_be_done_before_its_commit(dsn: str) -> None:
    """The connection dies when the first write of a batch is done and the second runs: neither is
    answered with success, and neither is stored.
    """
    table = table_of(dsn, "n int")

    async def body(lane: Lane) -> None:
        pid = await pid_of(lane)
        first = send(lane, f"INSERT INTO {table} VALUES (1) RETURNING n")
        second = send(lane, f"INSERT INTO {table} SELECT 2 FROM pg_sleep(30) RETURNING n")
        query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        while await asyncio.to_thread(execute, dsn, query, int(pid)) != [(1,)]:
            await asyncio.sleep(0)
        await kill_backend(dsn, pid)
        await first.wait()
        await second.wait()

        assert {"08006", "57P01"} >= {first.code, second.code}
        assert ([], []) == (first.values, second.values)
        assert [] == await asyncio.to_thread(execute, dsn, f"SELECT n FROM {table}")

    on_committing_lane(dsn, body)


def test_a_late_write_is_undone_alone(dsn: str) -> None:
    """At its deadline a write is undone; those that shared its batch are stored once."""
    table = table_of(dsn, "n int")

    async def body(lane: Lane) -> None:
        insert = f"INSERT INTO {table} VALUES ($1::int) RETURNING n"
        before = send(lane, insert, "1")
        late = send(
            lane, f"INSERT INTO {table} SELECT 2 FROM pg_sleep(30) RETURNING n", deadline_s=0.1
        )
        behind = send(lane, insert, "3")
        for answer in (before, late, behind):
            await answer.wait()
        stored = await asyncio.to_thread(execute, dsn, f"SELECT n FROM {table} ORDER BY n")

        assert "57014" == late.code
        assert [(1,), (3,)] == stored
        assert ([b"1"], [b"3"]) == (before.values, behind.values)

    on_committing_lane(dsn, body)
