"""What the real gunicorn of ``test_worker`` runs."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from modeldefs.wire.exchange import plain_problem
from modeldefs.wire.http1 import Cancel, HttpReply, HttpRequest, Reply
from modeldefs.wire.worker import make_worker


class SlowHandler:
    """Answers /hot/slow when /hot/go was asked."""

    def __init__(self) -> None:
        self.ready = False
        self.waiting: list[Reply] = []

    def claims(self, path: bytes) -> bool:
        return path.startswith(b"/hot")

    def answer(self, request: HttpRequest, reply: Reply) -> Cancel | None:
        if request.path == b"/hot/slow":
            self.waiting.append(reply)
            return None
        if request.path == b"/hot/go":
            for waiting in self.waiting:
                waiting(HttpReply(200, b"slow"))
        reply(HttpReply(200, b"ready" if self.ready else b"not ready"))
        return None

    def refuse(self, code: str, request: HttpRequest | None) -> HttpReply:
        return plain_problem(code)

    def upgrade(self, request: HttpRequest, transport: asyncio.Transport) -> None:
        return None

    def body_bytes_max(self, path: bytes) -> int:
        return 1000

    async def started(self) -> None:
        if os.environ.get("PLANT_FAULT"):
            raise RuntimeError("a planted fault")
        self.ready = True

    async def stopped(self) -> None:
        print("handler stopped", flush=True)


def make_handler() -> SlowHandler:
    return SlowHandler()


async def application(scope: Any, receive: Any, send: Any) -> None:
    body = scope["client"][0].encode() if scope["path"] == "/cold/who" else b"cold"
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


Worker = make_worker("tests.unit.wire.gunicorn_app.make_handler")
