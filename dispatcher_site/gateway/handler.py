"""What a front worker answers: data endpoints in the HTTP protocol, the rest by Django."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import random
import time

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import close_old_connections
from redis.asyncio import Redis

from dispatcher_site.gateway.backend import ShardsBackend
from dispatcher_site.gateway.last_used import LastUsed
from dispatcher_site.gateway.quota_sync import QuotaSync
from dispatcher_site.gateway.response_cache import ResponseCache
from dispatcher_site.gateway.routing_state import RoutingKeeper, RoutingState
from dispatcher_site.gateway.streams import Streams
from dispatcher_site.health.rollups import roll_up_all
from dispatcher_site.registry.services.versions import note_versions_used, use_key
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.front import DataFront
from modeldefs.kit.handler import EndpointHandler
from modeldefs.kit.key_quotas import Quotas
from modeldefs.kit.watching import Watch
from modeldefs.wire.keys import Principal
from modeldefs.wire.meter_files import MeterFolder
from modeldefs.wire.problems import Unauthorized

logger = logging.getLogger(__name__)


class FrontHandler(EndpointHandler):
    """The data path of one front worker."""

    def __init__(self) -> None:
        super().__init__()
        self._catalog = current_catalog()
        self._watch = Watch(
            self._catalog.endpoints,
            folder=MeterFolder(settings.SHARDPOINT_METERS_DIR),
            tuning=settings.SHARDPOINT_TUNING,
        )
        self._streams = Streams(self._catalog.bundle_id, self._watch)
        self._keeper = RoutingKeeper(
            on_change=self._follow, keys_age_s_max=settings.SHARDPOINT_TUNING.keys_age_s_max
        )
        self._last_used = LastUsed()
        self._versions_used = LastUsed(write=note_versions_used)
        self._minutes: asyncio.Task[None] | None = None
        self._quotas = Quotas(clock=time.monotonic)
        self._quota_sync: QuotaSync | None = None
        self._cache: ResponseCache | None = None

    def _follow(self, state: RoutingState) -> None:
        self._streams.follow(state)
        self._quotas.forget_others(state.keyring.kids)
        if self.front is not None:
            self.front.versions.follow(state.keyring.book)

    def _note_version(self, kid: str, model: str, number: int) -> None:
        self._versions_used.seen[use_key(kid, model, number)] = ""

    def _authenticate(self, header: bytes | None, client_host: str) -> Principal:
        principal = self._keeper.state.keyring.authenticate(header, client_host, time.time())
        if principal.kind != "data":
            raise Unauthorized
        self._last_used.seen[principal.kid] = client_host
        return principal

    async def started(self) -> None:
        """Read the registry and try every stream once before the first request."""
        self._watch.start()
        await self._keeper.start()
        await self._streams.settle()
        self._minutes = asyncio.get_running_loop().create_task(_each_minute())
        self._quota_sync = QuotaSync(
            self._quotas, url=settings.ENVIRONMENT.redis_url, processes=self.processes
        )
        self._quota_sync.start()
        self._last_used.start()
        self._versions_used.start()
        backend = ShardsBackend(keeper=self._keeper, streams=self._streams)
        backend.cache = self._cache = ResponseCache(
            Redis.from_url(settings.ENVIRONMENT.redis_url, max_connections=16, retry=None),
            secret=hmac.digest(settings.SECRET_KEY.encode(), b"shardpoint answers 1", "sha256"),
            clock=time.time,
            forward=backend.forward,
        )
        front = DataFront(
            catalog=self._catalog,
            backend=backend,
            authenticate=self._authenticate,
            cursor_key=cursor_key(settings.SECRET_KEY),
            clock=time.time,
            watch=self._watch,
            quotas=self._quotas,
        )
        front.versions.note_use = self._note_version
        front.versions.follow(self._keeper.state.keyring.book)
        self.install(front)

    async def stopped(self) -> None:
        """Close the streams and leave the counts behind."""
        if self._minutes is not None:
            self._minutes.cancel()
        if self._quota_sync is not None:
            await self._quota_sync.stop()
        if self._cache is not None:
            await self._cache.close()
        await self._last_used.stop()
        await self._versions_used.stop()
        await self._keeper.stop()
        await self._streams.close()
        self._watch.stop()


async def _each_minute() -> None:
    """Have each minute written down when it is over; workers a little apart, so one does it."""
    while True:
        await asyncio.sleep(60 - time.time() % 60 + 1 + random.random() * 5)  # noqa: S311
        try:
            await sync_to_async(_roll_up, thread_sensitive=False)()
        except Exception:
            logger.exception("rollup.failed")  # its counts are in the next minute's


def _roll_up() -> None:
    try:
        roll_up_all()
    finally:
        close_old_connections()


def cursor_key(secret: str) -> bytes:
    """Return the key that signs cursors, the same in every worker of a site."""
    return hmac.digest(secret.encode(), b"shardpoint cursor 1", hashlib.sha256)


def handler() -> FrontHandler:
    """Return the handler of this worker process."""
    return FrontHandler()
