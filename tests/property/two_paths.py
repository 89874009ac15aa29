"""The two HTTP sides of the data endpoints over real sockets, with one backend behind both.

Both listen with the real protocol and get the same bytes. On one side the handler claims the data
endpoints, on the other it claims nothing, so that all goes to Django's ASGI application and its
ninja operations. The backend answers from the ask alone, so equal asks have equal answers.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop
from django.apps import apps
from django.core.asgi import get_asgi_application
from django.test import override_settings
from uvicorn.config import Config
from uvicorn.server import ServerState

from modeldefs.kit.apps import KitConfig
from modeldefs.kit.asks import Ask, GroupsOutcome, Outcome, PageOutcome, Shards, Written
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.export_merge import Wanted
from modeldefs.kit.exports import Exports, OnPart
from modeldefs.kit.front import DataFront
from modeldefs.kit.handler import EndpointHandler
from modeldefs.kit.key_quotas import Quotas
from modeldefs.wire import calls
from modeldefs.wire.cursors import Lagging
from modeldefs.wire.keys import KeyEntry, Keyring, MintedKey, digest, mint_key
from modeldefs.wire.problems import Conflict, Problem, ShardFault, ShardUnavailable
from modeldefs.wire.quotas import KeyLimits
from modeldefs.wire.worker import protocol_factory

NOW = 1_790_000_000.0
TIMEOUT_S = 30.0
PEPPER = b"pepper of the tests"
# What a connection is about, and what is another for every request.
_UNCOMPARED = frozenset({b"date", b"x-request-id", b"connection"})
_REQUEST_ID = re.compile(rb'"request_id":"[0-9a-f]*"')

_LIMITS = KeyLimits(rate=100, window_s=60, burst=10, concurrency=3)

Comparable = tuple[bytes, list[tuple[bytes, bytes]], bytes]


class Keys:
    """Keys of every kind that a request may carry."""

    def __init__(self) -> None:
        self.all, self.reader, self.revoked, self.expired = (mint_key() for _ in range(4))
        self.control = mint_key("spa_")
        self.limited, self.spent = mint_key(), mint_key()
        self.unknown = mint_key()
        self.keyring = Keyring(
            [
                _entry(self.all, scopes=("*",)),
                _entry(self.reader, scopes=("*@*:*:read", "!*@*:customers", "!*@*:count_users")),
                _entry(self.revoked, scopes=("*",), revoked=True),
                _entry(self.expired, scopes=("*",), expires=NOW - 1),
                _entry(self.control, scopes=("*",), kind="control"),
                _entry(self.limited, scopes=("*",), limits=_LIMITS),
                _entry(self.spent, scopes=("*",), limits=KeyLimits(rate=1, concurrency=1)),
            ],
            {1: PEPPER},
        )

    def texts(self) -> list[str]:
        """Return every key, good and bad."""
        kinds = (
            *(self.all, self.reader, self.revoked, self.expired, self.control, self.unknown),
            *(self.limited, self.spent),
        )
        return [kind.text for kind in kinds]


def _entry(key: MintedKey, **known: Any) -> KeyEntry:
    return KeyEntry(kid=key.kid, digest=digest(PEPPER, key.secret), owner=key.kid, **known)


@dataclass
class AskingBackend:
    """Answers with what it was asked, sometimes at once and sometimes later, or refuses."""

    asks: list[tuple[Any, ...]] = field(default_factory=list)
    is_part = False

    def submit(self, ask: Ask, done: Callable[[Outcome], None]) -> None:
        """Answer from the ask alone."""
        told = (
            ask.served.endpoint.name,
            ask.mask,
            dict(sorted(ask.values.items())),  # their order has no meaning
            ask.limit,
            ask.after,
            ask.principal.kid,
            ask.timeout_ms,
            ask.is_export,
            ask.idempotency_key,
            ask.prefers.applied,
            ask.lagging,
        )
        self.asks.append(told)
        if ask.is_export:
            exports = Exports()
            exports.begin(ask, AskedParts(ask, told), done)
            return
        outcome = _outcome(ask, told)
        if len(ask.values) % 2:
            asyncio.get_running_loop().call_soon(done, outcome)
        else:
            done(outcome)

    def cost(self, ask: Ask) -> int:
        """Return the same for the same ask."""
        return 1 if ask.shard_key() is not None else 3


@dataclass
class AskedParts:
    """Three parts with what was asked; where the limit is 13 the second one is a refusal."""

    asked: Ask
    told: tuple[Any, ...]
    names: list[str] = field(default_factory=lambda: ["s1"])
    shards: Shards = field(default_factory=lambda: Shards(3, 3, 0.75))
    parts: int = 0

    def plan(self) -> int:
        """Ask one source, or refuse before the first row."""
        if self.asked.values.get("id") == "13":
            raise ShardUnavailable(shards=[ShardFault("s1", "refused", 3)], retry_after_ms=1_500)
        return 1

    def ask(self, wanted: Wanted, timeout_ms: int, on_part: OnPart) -> None:
        """Answer later."""
        self.parts += 1
        part: calls.PagePart | Problem = ShardUnavailable(shards=[ShardFault("s1", "refused", 3)])
        if self.parts == 1 or self.asked.limit != 13:
            assert self.asked.plan is not None
            assert self.asked.plan.first is not None
            key = ["7"] * len(self.asked.plan.first.keys)
            rows = [_json((number, *self.told)) for number in range(min(wanted.rows, 12))]
            part = calls.PagePart(rows, [key] * len(rows), self.parts < 3)
        asyncio.get_running_loop().call_soon(on_part, wanted.place, part)

    def forget(self) -> None:
        """Nothing is under way for long."""

    def mend(self, problem: Problem, again: Callable[[], None]) -> bool:
        """Mend nothing."""
        return False

    def final(self, problem: Problem, place: int) -> Problem:
        """Change nothing."""
        return problem


def _outcome(ask: Ask, told: tuple[Any, ...]) -> Outcome:
    shards = Shards(3, 3, 1.0 if ask.mask % 3 else 0.75)
    lagging: tuple[Lagging, ...] = ()
    if ask.prefers.partial:
        shards = Shards(3, 2, 0.75, (ShardFault("s2", "refused", 1.25),), late=len(ask.lagging))
        lagging = (Lagging(ask.after, ((0, 4_095),)),)
    if ask.limit == 13 or ask.values.get("id") == "13":
        return ShardUnavailable(shards=[ShardFault("s1", "refused", 3)], retry_after_ms=1_500)
    if ask.plan is None:
        return Conflict("taken") if ask.values.get("id") == "14" else Written(_json(told))
    if ask.plan.groups is not None:
        cells = [f"{told}{n}" if c.form.cell == "text" else n
                 for n, c in enumerate(ask.plan.columns)]  # fmt: skip
        return GroupsOutcome([cells], shards)
    if ask.served.endpoint.shape == "single" and ask.mask % 2:
        return PageOutcome(b"", None, False, shards)
    assert ask.plan.first is not None
    last = ["7"] * len(ask.plan.first.keys)
    return PageOutcome(_json(told), last, ask.after is None, shards, lagging)


def _json(told: object) -> bytes:
    return json.dumps({"asked": told}, default=str).encode()


class _Unclaiming(EndpointHandler):
    """Leaves everything to Django."""

    def claims(self, path: bytes) -> bool:
        """Claim nothing."""
        return False


class TwoPaths:
    """Both sides, listening; ``ask`` sends one request to each and returns what it answers."""

    def __init__(self, catalog: Catalog, urls: str) -> None:
        self.keys = Keys()
        self._urls = urls
        self.backend = AskingBackend()
        self.front = DataFront(
            catalog=catalog,
            backend=self.backend,
            authenticate=lambda header, host: self.keys.keyring.authenticate(header, host, NOW),
            cursor_key=b"c" * 32,
            clock=lambda: NOW,
            quotas=self._quotas(),
        )
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._servers: list[asyncio.Server] = []
        self._ports: list[int] = []

    def _quotas(self) -> Quotas:
        """Return meters for one request: both sides begin with the same."""
        quotas = Quotas(clock=lambda: NOW)
        spent = self.keys.keyring.authenticate(self.keys.spent.text, "", NOW)
        quotas.meter(spent).wait_s(1, NOW)
        return quotas

    def open(self) -> None:
        """Listen with both."""
        claiming, leaving = EndpointHandler(), _Unclaiming()
        claiming.front = self.front
        self._runner.run(self._listen(claiming))
        self._runner.run(self._listen(leaving))

    async def _listen(self, handler: EndpointHandler) -> None:
        app: Any = get_asgi_application()
        config = Config(app, http="httptools", ws="none", lifespan="off", log_config=None)
        config.load()
        state = ServerState()
        make = protocol_factory(handler)  # type: ignore[arg-type]
        server = await asyncio.get_running_loop().create_server(
            lambda: make(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        self._servers.append(server)
        self._ports.append(server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()
        self._runner.run(_settled())
        self._runner.close()

    def ask(self, request: bytes) -> tuple[Comparable, Comparable]:
        """Send the same bytes to both sides, and check that both asked their backend the same."""
        answers, asks = [], []
        with _serving(self.front), override_settings(ROOT_URLCONF=self._urls):
            for port in self._ports:
                self.backend.asks.clear()
                quotas = self.front.quotas = self._quotas()
                answers.append(comparable(self._runner.run(_exchange(port, request))))
                asks.append(list(self.backend.asks))
                assert all(meter.is_idle for meter in quotas.by_kid.values()), request
        assert asks[0] == asks[1], request
        return answers[0], answers[1]


async def _settled() -> None:
    """Wait for what Django does after its answers."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), TIMEOUT_S)


async def _exchange(port: int, request: bytes) -> bytes:
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


def comparable(answer: bytes) -> Comparable:
    """Return status, headers in order of their names and body, without what may differ."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    pairs = [line.split(b": ", 1) for line in lines]
    headers = sorted((name.lower(), value) for name, value in pairs)
    if (b"transfer-encoding", b"chunked") in headers:
        body = unchunked(body)
    # The request id is of one length on both sides, so content-length stays comparable.
    return (
        status,
        [pair for pair in headers if pair[0] not in _UNCOMPARED],
        _REQUEST_ID.sub(b'"request_id":""', body),
    )


def unchunked(body: bytes) -> bytes:
    """Return a body without its framing, which may differ, and how it ended, which may not."""
    pieces: list[bytes] = []
    while body:
        size, _, body = body.partition(b"\r\n")
        piece, body = body[: int(size, 16)], body[int(size, 16) + 2 :]
        if not piece:
            assert b"" == body
            return b"".join(pieces) + b"<whole>"
        pieces.append(piece)
    return b"".join(pieces) + b"<broken off>"


@contextmanager
def _serving(front: DataFront) -> Iterator[None]:
    """Have the ninja operations of this process answer by this front."""
    config = apps.get_app_config("kit")
    assert isinstance(config, KitConfig)
    before, config.front = config.front, front
    try:
        yield
    finally:
        config.front = before


@contextmanager
def two_paths(catalog: Catalog, *, urls: str) -> Iterator[TwoPaths]:
    """Serve a catalog on both sides; ``urls`` is the URL module that has its ninja API."""
    paths = TwoPaths(catalog, urls)
    try:
        paths.open()
        yield paths
    finally:
        paths.close()
