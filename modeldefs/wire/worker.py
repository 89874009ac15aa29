"""The gunicorn worker that serves hot paths in the protocol and the rest through ASGI.

The handler is made once per worker process, after the application was loaded (so Django is set
up), and is ready before the first connection is accepted. A handler that cannot start is fatal:
the worker exits as one that failed to boot and gunicorn stops, instead of starting it for ever.
"""

from __future__ import annotations

import gc
import importlib
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from modeldefs.wire.hot_protocol import HotProtocol
from modeldefs.wire.http1 import HotHandler, HttpLimits
from modeldefs.wire.known_heads import KnownHeads
from modeldefs.wire.sweeper import SWEEP_S_MAX, Sweeper

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope

logger = logging.getLogger("uvicorn.error")

GARBAGE_THRESHOLD = 10_000  # containers made and not freed, before the youngest are looked through


class HotApplication:
    """The ASGI application of a worker: its lifespan is the handler's, all else the app's."""

    def __init__(self, app: ASGI3Application, handler: HotHandler) -> None:
        self._app = app
        self._handler = handler

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        try:
            await self._handler.started()
        except Exception:
            logger.critical("http.handler_not_started", exc_info=True)
            message = "The handler of the hot paths could not start."
            await send({"type": "lifespan.startup.failed", "message": message})
            return
        _settle_garbage()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await self._handler.stopped()
        except Exception:
            logger.exception("http.handler_not_stopped")
        await send({"type": "lifespan.shutdown.complete"})


def _settle_garbage() -> None:
    """Take what was made so far, which lives as long as the process, out of the collector's sight.

    Else a worker spends a good part of its time looking for cycles among Django's modules. What
    requests make is freed by its counts; the collector is left for the few cycles among it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 50, 100)


def protocol_factory(
    handler: HotHandler, *, limits: HttpLimits | None = None, sweep_s: float = SWEEP_S_MAX
) -> Callable[..., HotProtocol]:
    """Return what uvicorn takes as its ``http`` setting.

    All connections share one sweeper, and what is known of header blocks.
    """
    return partial(
        HotProtocol,
        handler=handler,
        limits=limits or HttpLimits(),
        sweeper=Sweeper(interval_s=sweep_s),
        heads=KnownHeads(),
    )


def make_worker(handler_factory: str, *, limits: HttpLimits | None = None) -> type[UvicornWorker]:
    """Return a worker class for gunicorn's ``--worker-class``.

    Args:
        handler_factory: Dotted path of a callable without arguments that returns the handler.
        limits: Of every connection; gunicorn's own ``keepalive`` is not looked at.
    """
    known = limits or HttpLimits()

    class HotWorker(UvicornWorker):  # type: ignore[misc]
        """A worker on uvloop that answers hot paths itself."""

        CONFIG_KWARGS: dict[str, Any] = {
            "loop": "uvloop",
            "http": "httptools",
            "ws": "none",
            "lifespan": "on",
            "access_log": False,
            "server_header": False,
            # A header cannot say who calls: keys are bound to networks, and the hot paths know the
            # socket's peer only.
            "proxy_headers": False,
        }
        wsgi: Any

        async def _serve(self) -> None:
            try:
                module, _, name = handler_factory.rpartition(".")
                handler = getattr(importlib.import_module(module), name)()
            except Exception:
                logger.critical(
                    "http.handler_not_made", exc_info=True, extra={"factory": handler_factory}
                )
                sys.exit(Arbiter.WORKER_BOOT_ERROR)
            handler.processes = int(self.cfg.workers)  # for limits that all of them share
            # uvicorn calls it like the class it expects.
            self.config.http = cast(Any, protocol_factory(handler, limits=known))
            self.wsgi = HotApplication(self.wsgi, handler)
            await super()._serve()

    return HotWorker
