"""The hot handler that both sites share: data endpoints from the front, refusals as problems.

A data endpoint answers the same bytes whether the HTTP protocol asks the front or Django does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from secrets import token_hex
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.apps import apps
from django.http import HttpRequest as DjangoRequest
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from modeldefs.kit.apps import KitConfig
from modeldefs.kit.django_bodies import PulledBody
from modeldefs.kit.front import DataFront
from modeldefs.kit.replies import problem_reply
from modeldefs.wire.http1 import Cancel, HttpReply, HttpRequest, Reply, StreamReply
from modeldefs.wire.problems import STANDARD_PROBLEMS, Internal, ShardUnavailable
from modeldefs.wire.request_reader import ReadRequest

BODY_BYTES_MAX = 1_048_576


def refusal(code: str, request: HttpRequest | None) -> HttpReply:
    """Return the reply for what the HTTP protocol refused, by its code."""
    kind = STANDARD_PROBLEMS.get(code, Internal)
    return problem_reply(kind(), request.path if request is not None else b"", token_hex(8))


class EndpointHandler:
    """Answers data endpoints; what else a site has in front of Django it adds."""

    processes = 1  # of this site here; the worker says how many

    def __init__(self) -> None:
        self.front: DataFront | None = None

    def claims(self, path: bytes) -> bool:
        """Is the path that of a data endpoint?"""
        return self.front is not None and self.front.claims(path)

    def answer(self, request: HttpRequest, reply: Reply) -> Cancel | None:
        """Answer a request of a data endpoint."""
        if self.front is None:
            reply(problem_reply(ShardUnavailable("starting"), request.path, token_hex(8)))
            return None
        return self.front.answer(request, reply)

    def refuse(self, code: str, request: HttpRequest | None) -> HttpReply:
        """Return the problem for a request that broke the protocol."""
        return refusal(code, request)

    def body_bytes_max(self, path: bytes) -> int:
        """Return the limit of a body."""
        return BODY_BYTES_MAX

    def upgrade(
        self, request: HttpRequest, transport: asyncio.Transport
    ) -> asyncio.Protocol | HttpReply | None:
        """Return None: only a node's handler takes over connections."""
        return None

    def install(self, front: DataFront) -> None:
        """Serve from now on, here and in the ninja operations of this process."""
        self.front = front
        # Without a step in between: these are called for every request.
        self.claims = front.claims  # type: ignore[method-assign]
        self.answer = front.answer  # type: ignore[method-assign]
        config = apps.get_app_config("kit")
        if isinstance(config, KitConfig):
            config.front = front


async def answer_through_django(request: DjangoRequest) -> HttpResponseBase:
    """Answer a data endpoint that came in through Django instead of the HTTP protocol."""
    config = apps.get_app_config("kit")
    front = config.front if isinstance(config, KitConfig) else None
    asked = ReadRequest(
        (request.method or "GET").encode("latin-1"),
        request.path.encode("ascii", "ignore"),
        str(request.META.get("QUERY_STRING", "")).encode("latin-1"),
        [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in request.headers.items()
        ],
        request.body,
        str(request.META.get("REMOTE_ADDR", "")),
        version=str(getattr(request, "scope", {}).get("http_version", "1.1")),
        keep_alive=True,
        upgrade=False,
    )
    if front is None:
        return _django_response(
            problem_reply(
                ShardUnavailable("this process serves no data"), asked.path, token_hex(8)
            )
        )
    answered: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()

    def reply(answer: HttpReply) -> None:
        if not answered.done():
            answered.set_result(answer)

    cancel = front.answer(asked, reply)
    try:
        answer = await answered
    except asyncio.CancelledError:
        if cancel is not None:
            cancel()
        raise
    if isinstance(answer, StreamReply):
        return _streaming_response(answer, is_head=asked.method == b"HEAD")
    return _django_response(answer)


class _DataAnswer(HttpResponse):
    """A front's answer; ``headers_of_front`` are all that it may have."""

    headers_of_front: tuple[tuple[str, str], ...]


class _StreamedAnswer(StreamingHttpResponse):
    """A front's answer whose body comes in pieces."""

    headers_of_front: tuple[tuple[str, str], ...]


def _told(answer: HttpReply) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]


def _django_response(answer: HttpReply) -> HttpResponse:
    response = _DataAnswer(answer.body, status=answer.status)
    told = _told(answer)
    if answer.status not in (204, 304):
        told.append(("content-length", str(len(answer.body))))
    response.headers_of_front = tuple(told)
    _seal(response)
    return response


def _streaming_response(answer: StreamReply, *, is_head: bool) -> HttpResponseBase:
    response: _DataAnswer | _StreamedAnswer
    if is_head:
        answer.source.stop()
        response = _DataAnswer()
    else:
        body = PulledBody(answer.source)
        response = _StreamedAnswer(body.pieces())
        # Django closes what it did not begin to iterate over too, and in a thread of its own.
        loop = asyncio.get_running_loop()
        closers = response._resource_closers  # type: ignore[attr-defined]
        closers.append(lambda: loop.call_soon_threadsafe(body.close))
    response.headers_of_front = tuple(_told(answer))
    _seal(response)
    return response


def _seal(response: _DataAnswer | _StreamedAnswer) -> None:
    response.cookies.clear()
    for name in tuple(response.headers):
        del response[name]
    for name, value in response.headers_of_front:
        response[name] = value


@sync_and_async_middleware
def exact_answers(get_response: Callable[[DjangoRequest], Any]) -> Callable[..., Any]:
    """Take from data endpoints' answers what other middleware adds for pages; it comes first."""

    def exact(response: HttpResponseBase) -> HttpResponseBase:
        if isinstance(response, _DataAnswer | _StreamedAnswer):
            _seal(response)
        return response

    async def answer(request: DjangoRequest) -> HttpResponseBase:
        return exact(await get_response(request))

    if iscoroutinefunction(get_response):
        return answer
    return lambda request: exact(get_response(request))
