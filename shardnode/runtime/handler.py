"""What a node worker answers: streams from the dispatcher, direct calls, control by Django."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from functools import partial

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.front import DataFront, problem_reply
from modeldefs.kit.handler import BODY_BYTES_MAX, EndpointHandler
from modeldefs.wire import calls
from modeldefs.wire.cursors import FORMAT
from modeldefs.wire.frames import NO_BUCKET, RequestRecord
from modeldefs.wire.handshake import STREAM_PATH, accept_upgrade
from modeldefs.wire.http1 import HttpReply, HttpRequest
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import InvalidRequest, Problem, Unauthorized
from modeldefs.wire.signing import NONCE_BYTES
from modeldefs.wire.stream_server import Answer, StreamServer
from shardnode.apps import current_node
from shardnode.runtime.direct import LocalBackend
from shardnode.runtime.executor import Cancel, Executor, Outcome, Place, encode_outcome
from shardnode.runtime.lane_pool import LanePool
from shardnode.runtime.lanes import LaneLimits
from shardnode.runtime.mutations import Writer
from shardnode.runtime.point_reads import SESSION as POINT_SESSION
from shardnode.runtime.point_reads import PointReads
from shardnode.runtime.write_runs import WRITE_SESSION
from shardnode.runtime.writes import Writes

POINT_LANES = 2
QUICK_LANES = 3
SLOW_LANES = 3
WRITE_LANES = 3  # while one waits for its commit, the next tick's writes take another
ROWS_BODY_BYTES_MAX = 16 * 1024 * 1024
ROWS_PATH = b"/_node/rows/"


class NodeHandler(EndpointHandler):
    """The data path of one node worker."""

    def __init__(self) -> None:
        super().__init__()
        node = current_node()
        self._node = node
        self._config = node.config
        self._catalog = current_catalog()
        self._keeper, self._trust = node.keeper, node.trust
        self._loop = asyncio.get_running_loop()
        self._quick = LanePool(self._config.ro_dsn, QUICK_LANES)
        self._slow = LanePool(self._config.ro_dsn, SLOW_LANES, LaneLimits(batch_max=1))
        self._points = LanePool(self._config.ro_dsn, POINT_LANES, session=POINT_SESSION)
        self._writes = Writes(
            catalog=self._catalog,
            lanes=LanePool(self._config.rw_dsn, WRITE_LANES, commits=True, session=WRITE_SESSION),
            writer=Writer(shard=self._config.name, clock=self._loop.time),
            shard=self._config.name,
            clock=self._loop.time,
        )
        self._executor = Executor(
            catalog=self._catalog,
            ownership=self._keeper,
            quick=self._quick,
            slow=self._slow,
            points=PointReads(self._points, shard=self._config.name),
            writer=self._writes,
            shard=self._config.name,
            clock=self._loop.time,
        )

    async def started(self) -> None:
        """Connect the lanes before the first request."""
        await self._quick.open()
        await self._slow.open()
        await self._points.open()
        await self._writes.open()
        secret = self._config.rw_dsn.encode()
        label = b"shardpoint node cursor %d" % FORMAT
        self.install(
            DataFront(
                catalog=self._catalog,
                backend=LocalBackend(executor=self._executor, keeper=self._keeper),
                authenticate=self._authenticate,
                cursor_key=hmac.digest(secret, label, hashlib.sha256),
                clock=time.time,
            )
        )

    async def stopped(self) -> None:
        """Finish what runs and close the lanes."""
        await self._writes.close()
        await self._quick.close()
        await self._slow.close()
        await self._points.close()
        await self._loop.run_in_executor(None, self._node.close)

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
        try:
            endpoint = self._executor.endpoint(record.endpoint)
            call = calls.decode_call(record.body)
        except Problem as problem:
            answer(*encode_outcome(problem))
            return
        except ValueError:
            answer(*encode_outcome(InvalidRequest("the call is malformed")))
            return
        bucket = None if record.bucket == NO_BUCKET else record.bucket

        joined = bool(record.flags & calls.JOINED)
        ended = []

        def done(outcome: Outcome) -> None:
            ended.append(True)
            running.pop(record.request_id, None)
            answer(*encode_outcome(outcome, joined=joined))

        give_up = self._executor.run(
            endpoint=endpoint,
            call=call,
            place=Place(bucket, record.epoch),
            joined=joined,
            deadline=self._loop.time() + record.deadline_ms / 1_000,
            done=done,
            export=bool(record.flags & calls.EXPORT),
        )
        if give_up is not None and not ended:
            running[record.request_id] = give_up

    def _authenticate(self, header: bytes | None, client_host: str) -> Principal:
        principal = self._trust.keyring.authenticate(header, client_host, time.time())
        if principal.kind != "data":
            raise Unauthorized
        return principal


def handler() -> NodeHandler:
    """Return the handler of this worker process."""
    return NodeHandler()
