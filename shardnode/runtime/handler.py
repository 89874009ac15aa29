"""What a node worker answers: streams from the dispatcher, direct calls, control by Django."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from functools import partial
from time import perf_counter
from typing import Any

import msgspec
from django.conf import settings

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.front import DataFront
from modeldefs.kit.handler import BODY_BYTES_MAX, EndpointHandler
from modeldefs.kit.key_quotas import Quotas
from modeldefs.kit.many import ManyEndpoint
from modeldefs.kit.replies import problem_reply
from modeldefs.kit.snapshots import LIFE
from modeldefs.kit.watching import Ended, Watch
from modeldefs.wire import calls
from modeldefs.wire.cursors import FORMAT
from modeldefs.wire.frames import NO_BUCKET, RequestRecord
from modeldefs.wire.handshake import STREAM_PATH, accept_upgrade
from modeldefs.wire.http1 import HttpReply, HttpRequest
from modeldefs.wire.keys import Principal
from modeldefs.wire.meter_files import MeterFolder
from modeldefs.wire.meters import (
    OK,
    UNKNOWN,
    Table,
    count,
    count_problem,
    endpoint_table,
)
from modeldefs.wire.problems import InvalidRequest, Problem, Unauthorized
from modeldefs.wire.signing import NONCE_BYTES
from modeldefs.wire.stream_server import Answer, StreamServer
from modeldefs.wire.traceparent import parse_traceparent
from shardnode.apps import current_node
from shardnode.guard.stream_scopes import StreamScopes
from shardnode.runtime.direct import LocalBackend
from shardnode.runtime.executor import Cancel, Executor, Outcome, Place, encode_outcome
from shardnode.runtime.filtered import FilteredRuns
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lane_statements import LANE_COLUMNS
from shardnode.runtime.lanes import LaneLimits
from shardnode.runtime.many_writes import ManyWrites
from shardnode.runtime.mutations import Writer
from shardnode.runtime.point_reads import SESSION as POINT_SESSION
from shardnode.runtime.point_reads import PointReads
from shardnode.runtime.write_runs import WRITE_SESSION
from shardnode.runtime.writes import Writes

POINT_LANES = 2
QUICK_LANES = 3
SLOW_LANES = 3
SLOW_IN_FLIGHT_MAX = 16  # on a lane: enough that Postgres never waits for the next one
WRITE_LANES = 3  # while one waits for its commit, the next tick's writes take another
MANY_LANES = 2
ROWS_BODY_BYTES_MAX = 16 * 1024 * 1024
ROWS_PATH = b"/_node/rows/"


class _StreamCall(msgspec.Struct, eq=False):
    """One call of a stream under way. A struct: one is made for every call."""

    handler: NodeHandler
    endpoint: Endpoint[Any, Any]
    call: calls.Call
    joined: bool
    request_id: int
    running: dict[int, Cancel]
    answer: Answer
    begun: float
    is_over: bool = False

    def done(self, outcome: Outcome) -> None:
        """Answer."""
        self.is_over = True
        self.running.pop(self.request_id, None)
        status, body = encode_outcome(outcome, joined=self.joined)
        self.handler.count_call(self, outcome, body)
        self.answer(status, body)


class NodeHandler(EndpointHandler):
    """The data path of one node worker."""

    def __init__(self) -> None:
        super().__init__()
        node = current_node()
        self._node = node
        self._config = node.config
        self._catalog = current_catalog()
        self._keeper, self._trust = node.keeper, node.trust
        self._scopes = StreamScopes.of(node.trust, node.keeper)
        self._loop = asyncio.get_running_loop()
        tuning = settings.SHARDPOINT_TUNING
        names = [endpoint.name for endpoint in self._catalog.by_number]
        self._calls = endpoint_table("calls", names)
        self._call_rows = [self._calls.rows[name] for name in names]
        self._unknown_row = self._calls.rows[UNKNOWN]
        self._lanes = Table.of("lanes", LANE_COLUMNS, ("quick", "slow", "point", "write", "many"))
        self._watch = Watch(
            names,
            folder=MeterFolder(self._config.folder / "metrics"),
            tuning=tuning,
            tables=(self._calls, self._lanes),
        )
        self._make_lanes(tuning.lane_wait_ms)
        self._pools = (self._quick, self._slow, self._points, self._writing, self._batching)
        self._watch.every_tick(self._fill_lanes)
        self._writes = Writes(
            catalog=self._catalog,
            lanes=self._writing,
            writer=Writer(shard=self._config.name, clock=self._loop.time),
            shard=self._config.name,
            clock=self._loop.time,
        )
        self._many = ManyWrites(
            catalog=self._catalog,
            lanes=self._batching,
            shard=self._config.name,
            clock=self._loop.time,
        )
        self._filtered = FilteredRuns(
            catalog=self._catalog,
            ownership=self._keeper,
            frw_dsn=self._config.frw_dsn,
            fro_dsn=self._config.fro_dsn,
            shard=self._config.name,
            clock=self._loop.time,
            rows=self._call_rows,
            limits=LaneLimits(wait_s=tuning.lane_wait_ms / 1_000),
        )
        self._executor = Executor(
            filtered=self._filtered.executor,
            catalog=self._catalog,
            ownership=self._keeper,
            quick=self._quick,
            slow=self._slow,
            points=PointReads(self._points, shard=self._config.name),
            writer=self._writes,
            many=self._many,
            shard=self._config.name,
            clock=self._loop.time,
            rows=self._call_rows,
        )

    def _make_lanes(self, lane_wait_ms: int) -> None:
        wait_s = lane_wait_ms / 1_000
        limits = LaneLimits(wait_s=wait_s)
        # What is slow waits outside of the lanes, where its turn has a limit.
        slow = LaneLimits(wait_s=wait_s, batch_max=1, in_flight_max=SLOW_IN_FLIGHT_MAX)
        self._quick = LanePool(self._config.ro_dsn, QUICK_LANES, limits, session=(LIFE,))
        self._slow = LanePool(self._config.ro_dsn, SLOW_LANES, slow, session=(LIFE,))
        self._points = LanePool(self._config.ro_dsn, POINT_LANES, limits, session=POINT_SESSION)
        self._writing = LanePool(
            self._config.rw_dsn, WRITE_LANES, limits, commits=True, session=WRITE_SESSION
        )
        batches = LaneLimits(wait_s=wait_s, batch_max=1)
        self._batching = LanePool(
            self._config.rw_dsn, MANY_LANES, batches, commits=True, session=WRITE_SESSION
        )

    async def started(self) -> None:
        """Connect the lanes before the first request."""
        self._watch.start()
        await self._quick.open()
        await self._slow.open()
        await self._points.open()
        await self._writes.open()
        await self._many.open()
        secret = self._config.rw_dsn.encode()
        label = b"shardpoint node cursor %d" % FORMAT
        front = DataFront(
            catalog=self._catalog,
            backend=LocalBackend(executor=self._executor, keeper=self._keeper),
            authenticate=self._authenticate,
            cursor_key=hmac.digest(secret, label, hashlib.sha256),
            clock=time.time,
            watch=self._watch,
            # Nodes do not know of each other: each counts alone, its workers a share each.
            quotas=Quotas(clock=time.monotonic, share=max(1, self._config.workers)),
        )
        self._trust.on_keyring(lambda keyring: front.versions.follow(keyring.book))
        self.install(front)

    async def stopped(self) -> None:
        """Finish what runs and close the lanes."""
        await self._filtered.close()
        await self._writes.close()
        await self._many.close()
        await self._quick.close()
        await self._slow.close()
        await self._points.close()
        self._watch.stop()
        await self._loop.run_in_executor(None, self._node.close)

    def _fill_lanes(self) -> None:
        for pool, row in zip(self._pools, self._lanes.rows.values(), strict=True):
            pool.fill(row)

    def body_bytes_max(self, path: bytes) -> int:
        """Return the limit of a body; parts of a bulk load are larger than requests."""
        return ROWS_BODY_BYTES_MAX if path.startswith(ROWS_PATH) else BODY_BYTES_MAX

    def upgrade(
        self, request: HttpRequest, transport: asyncio.Transport
    ) -> asyncio.Protocol | HttpReply | None:
        """Take over a stream of our dispatcher."""
        if request.path != STREAM_PATH:
            return None
        accepted = accept_upgrade(
            request,
            pair_key_of=self._trust.pair_key_of,
            shard=self._config.name,
            bundle=self._catalog.bundle_id,
            nonces=self._node.nonces,
            now=time.time(),
            nonce=secrets.token_bytes(NONCE_BYTES),
        )
        if isinstance(accepted, Problem):
            return problem_reply(accepted, request.path, "")
        answer, session = accepted
        transport.write(answer)
        running: dict[int, Cancel] = {}

        def cancel(request_id: int) -> None:
            give_up = running.pop(request_id, None)
            if give_up is not None:
                give_up()

        return StreamServer(
            session=session, on_request=partial(self._on_request, running), on_cancel=cancel
        )

    def _on_request(
        self, running: dict[int, Cancel], record: RequestRecord, answer: Answer
    ) -> None:
        begun = perf_counter()
        number = record.endpoint
        try:
            endpoint = self._executor.endpoint(number)
            if isinstance(endpoint, ManyEndpoint):
                self._on_batch(endpoint, record, answer, begun)
                return
            call = calls.decode_call(record.body)
            self._scopes.check(call.kid or call.principal, endpoint)
        except Problem as problem:
            self._refuse(number, problem, perf_counter() - begun, answer)
            return
        except ValueError:
            malformed = InvalidRequest("the call is malformed")
            self._refuse(number, malformed, perf_counter() - begun, answer)
            return
        bucket = None if record.bucket == NO_BUCKET else record.bucket
        flags = record.flags
        joined = flags & calls.JOINED != 0
        request_id = record.request_id
        under_way = _StreamCall(self, endpoint, call, joined, request_id, running, answer, begun)
        give_up = self._executor.run(
            endpoint=endpoint,
            call=call,
            place=Place(bucket, record.epoch),
            joined=joined,
            deadline=self._loop.time() + record.deadline_ms / 1_000,
            done=under_way.done,
            export=flags & calls.EXPORT != 0,
        )
        if give_up is not None and not under_way.is_over:
            running[request_id] = give_up

    def count_call(self, under_way: _StreamCall, outcome: Outcome, body: bytes) -> None:
        """Count a call of a stream that has ended, and log what is particular about it."""
        endpoint, call = under_way.endpoint, under_way.call
        row = self._call_rows[endpoint.number]
        took_s = perf_counter() - under_way.begun
        if isinstance(outcome, Problem):
            count_problem(row, outcome.code, took_s, len(body))
            self._note(endpoint.name, call, outcome.status, outcome.code, took_s)
        else:
            count(row, OK, took_s, len(body))
            if took_s >= self._watch.slow_s:
                self._note(endpoint.name, call, calls.WHOLE, "ok", took_s)

    def _on_batch(
        self, endpoint: ManyEndpoint, record: RequestRecord, answer: Answer, begun: float
    ) -> None:
        call = calls.decode_many(record.body)
        self._scopes.check(call.kid, endpoint)
        deadline = self._loop.time() + record.deadline_ms / 1_000

        def done(outcome: Outcome) -> None:
            took_s = perf_counter() - begun
            if isinstance(outcome, Problem):
                self._refuse(endpoint.number, outcome, took_s, answer)
                self._note(endpoint.name, call, outcome.status, outcome.code, took_s)
                return
            status, body = encode_outcome(outcome)
            count(self._call_rows[endpoint.number], OK, took_s, len(body))
            if took_s >= self._watch.slow_s:
                self._note(endpoint.name, call, status, "ok", took_s)
            answer(status, body)

        self._executor.run_many(endpoint, call, deadline, done)

    def _refuse(self, number: int, problem: Problem, took_s: float, answer: Answer) -> None:
        known = number < len(self._call_rows)
        row = self._call_rows[number] if known else self._unknown_row
        status, body = encode_outcome(problem)
        count_problem(row, problem.code, took_s, len(body))
        answer(status, body)

    def _note(
        self,
        name: str,
        call: calls.Call | calls.ManyCall,
        status: int,
        code: str,
        took_s: float,
    ) -> None:
        event = "call.failed" if status >= 500 else "call.slow"
        trace = parse_traceparent(call.trace.encode()) if call.trace else None
        trace_id = trace.trace_id if trace is not None else ""
        ended = Ended(event, name, status, code, took_s, call.request_id, trace_id=trace_id)
        self._watch.note_call(ended)

    def _authenticate(self, header: bytes | None, client_host: str) -> Principal:
        principal = self._trust.keyring.authenticate(header, client_host, time.time())
        if principal.kind != "data":
            raise Unauthorized
        return principal


def handler() -> NodeHandler:
    """Return the handler of this worker process."""
    return NodeHandler()
