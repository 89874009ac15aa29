"""The HTTP side of every data endpoint, the same on the dispatcher and on a node called directly.

One order of steps for every request: name, method, key, scope, parameters, cursor, then the
backend; nothing touches a row before all of them passed. What differs between the sites is the
backend alone: it gets a whole, checked ask and gives back one outcome.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
from collections.abc import Callable
from functools import partial
from time import perf_counter

import msgspec

from modeldefs.kit.asking import AskReader
from modeldefs.kit.asks import (
    ONE_SHARD,
    Ask,
    Backend,
    LinesOutcome,
    Outcome,
    Served,
)
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.detours import submit_as_preferred
from modeldefs.kit.endpoints import RESERVED_PATHS
from modeldefs.kit.key_quotas import LimitedCall, Quotas
from modeldefs.kit.preferences import NOTHING
from modeldefs.kit.replies import ReplyMaker, problem_reply
from modeldefs.kit.request_headers import (
    RequestHeaders,
    headers_of,
)
from modeldefs.kit.reuse_replies import reused_reply
from modeldefs.kit.served_versions import ServedVersions
from modeldefs.kit.traces import Trace
from modeldefs.kit.waiting import Waiters
from modeldefs.kit.watching import Watch
from modeldefs.wire.http1 import Cancel, HttpReply, HttpRequest, JsonReply, Reply
from modeldefs.wire.keys import Principal
from modeldefs.wire.meters import ABANDONED, BYTES_IN, OK, count
from modeldefs.wire.problems import (
    Internal,
    Overloaded,
    Problem,
)

logger = logging.getLogger(__name__)

RETRY_AFTER_MS = 1_000
_ENDPOINT_PATH = re.compile(rb"/[A-Za-z][A-Za-z0-9_]{0,99}\Z")


Authenticate = Callable[[bytes | None, str], Principal]


class Underway(msgspec.Struct, eq=False):
    """A request that a backend was given, until its one reply or until its client has gone."""

    front: DataFront
    ask: Ask
    request: HttpRequest
    reply: Reply
    begun: float
    give_up: Cancel | None = None
    is_over: bool = False

    def done(self, outcome: Outcome) -> None:
        """Reply; a second outcome is dropped."""
        if not self.is_over:
            self.is_over = True
            self.front.admission.in_flight -= 1
            self.reply(self.front.answered(self.ask, outcome, self.request, self.begun))

    def cancel(self) -> None:
        """The client is gone."""
        if not self.is_over:
            self.is_over = True
            self.front.admission.in_flight -= 1
            self.ask.served.row[ABANDONED] += 1
        assert self.give_up is not None
        self.give_up()


class DataFront:
    """Answers the data endpoints of one worker process, for a HotHandler to call."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        backend: Backend,
        authenticate: Authenticate,
        cursor_key: bytes,
        clock: Callable[[], float],
        quotas: Quotas,
        watch: Watch | None = None,
    ) -> None:
        self.quotas = quotas
        self._backend = backend
        self.authenticate = authenticate
        self._reader = AskReader(
            catalog=catalog, cursor_key=cursor_key, clock=clock, is_part=backend.is_part
        )
        self._replies = ReplyMaker(cursor_key=cursor_key, clock=clock)
        self._watch = watch = watch or Watch(catalog.endpoints)
        self.admission = watch.admission
        # By whether nothing is preferred: the way that nearly all asks take.
        preferred = partial(submit_as_preferred, backend, Waiters(watch.admission))
        self._ways = (preferred, backend.submit)
        self._unknown_row = watch.row()
        heads = [Served(each, watch.row(each.name)) for each in catalog.endpoints.values()]
        self.versions = ServedVersions(catalog, heads, clock=clock)
        self.by_path = self.versions.by_path
        self._ids = itertools.count()
        self._id_prefix = secrets.token_hex(6)

    def claims(self, path: bytes) -> bool:
        """Is the path that of a data endpoint, or of one that somebody misspelt?"""
        return (
            path in self.by_path
            or (_ENDPOINT_PATH.match(path) is not None and path[1:].decode() not in RESERVED_PATHS)
            or self.versions.claims(path)
        )

    def answer(self, request: HttpRequest, reply: Reply) -> Cancel | None:
        """Answer one request; every way out is one reply, counted once."""
        begun = perf_counter()
        request_id = f"{self._id_prefix}{next(self._ids):08x}"
        served = self.by_path.get(request.path)
        limited: LimitedCall | None = None
        try:
            known = request.known_head
            headers = known.facts if known is not None else None
            if headers is None:
                headers = headers_of(request)
            principal = self.authenticate(headers.key, request.client_host)
            if principal.limits is not None:
                limited = self.quotas.begin(principal, reply)
                reply = limited.reply
            ask: Ask | HttpReply | None = None
            # What most requests are; for whatever else it may be there is the long way.
            admission = self.admission
            if (
                headers.is_plain
                and served is not None
                and limited is None
                and admission.in_flight < admission.scatters_max
            ):
                ask = self._reader.quick(served, request, headers, principal, request_id)
            if ask is None:
                ask = self._admitted(
                    request, served, headers, principal, limited, request_id, begun
                )
        except Exception as fault:
            reply(self._refused(fault, request, served, request_id, begun))
            return None
        if isinstance(ask, HttpReply):
            row = self._unknown_row if served is None else served.row
            count(row, OK, perf_counter() - begun, 0)
            reply(ask)
            return None
        admission.in_flight += 1
        underway = Underway(self, ask, request, reply, begun)
        try:
            underway.give_up = self._ways[ask.prefers is NOTHING](ask, underway.done)
        except Exception:
            logger.exception("submit.failed", extra={"request_id": request_id})
            underway.done(Internal())
        if underway.give_up is None:
            return None
        return limited.cancelling(underway.cancel) if limited else underway.cancel

    def _refused(
        self,
        fault: Exception,
        request: HttpRequest,
        served: Served | None,
        request_id: str,
        begun: float,
    ) -> HttpReply:
        row = self._unknown_row if served is None else served.row
        answered = self._refusal(fault, request.path, request_id)
        _trace_refusal(request, answered, begun)
        self._watch.count_other(row, served, request, answered, perf_counter() - begun)
        return answered

    def _admitted(
        self,
        request: HttpRequest,
        served: Served | None,
        headers: RequestHeaders,
        principal: Principal,
        limited: LimitedCall | None,
        request_id: str,
        begun: float,
    ) -> Ask | HttpReply:
        """Return the checked ask of a request for which there is room; a reply to OPTIONS."""
        if limited is not None:
            limited.admit()
        if not headers.is_settled:
            headers.settle()
        # Behind the key: who has none learns no name, neither what there is nor what it answers.
        if served is None:
            raise self.versions.unknown(request.path)
        if request.method == b"OPTIONS":
            return HttpReply(204, b"", [(b"allow", served.allow.encode())])
        admission = self.admission
        # The least of the limits: as long as it is not reached none of the others is looked at.
        is_busy = admission.in_flight >= admission.scatters_max
        if is_busy and not admission.admits(is_write=served.verb == "write"):
            raise Overloaded(retry_after_ms=RETRY_AFTER_MS)
        ask = self._reader.quick(
            served, request, headers, principal, request_id
        ) or self._looked_at(served, request, headers, principal, request_id)
        if is_busy and ask.is_scatter and not admission.admits(is_scatter=True):
            raise Overloaded(retry_after_ms=RETRY_AFTER_MS)
        if limited is not None:
            # A count beside the page is another read of the same shards.
            limited.charge(self._backend.cost(ask) * (2 if ask.prefers.count else 1))
        if headers.is_traced:
            ask.trace = Trace(headers, begun)
        return ask

    def answered(
        self, ask: Ask, outcome: Outcome, request: HttpRequest, begun: float
    ) -> HttpReply:
        """Return the reply of an outcome, counted."""
        answered = self._reply(ask, outcome, request)
        took_s = perf_counter() - begun - ask.waited_s
        row, watch = ask.served.row, self._watch
        if request.body:
            row[BYTES_IN] += len(request.body)
        if type(answered) is JsonReply:
            count(row, OK, took_s, len(answered.body))
            shards = getattr(outcome, "shards", ONE_SHARD)
            if took_s >= watch.slow_s or shards is not ONE_SHARD:
                watch.note(ask, outcome, request, took_s)
        else:
            watch.count_other(row, ask.served, request, answered, took_s, ask)
        return answered

    def _looked_at(
        self,
        served: Served,
        request: HttpRequest,
        headers: RequestHeaders,
        principal: Principal,
        request_id: str,
    ) -> Ask:
        """Return the ask of a request in the version that it means."""
        served = self.versions.choose(served, headers, principal)
        try:
            return self._reader.ask(served, request, headers, principal, request_id)
        except Problem as problem:
            told = [(name.decode(), value.decode()) for name, value in served.version_headers]
            problem.headers = (*problem.headers, *told)
            raise

    def _reply(self, ask: Ask, outcome: Outcome, request: HttpRequest) -> HttpReply:
        try:
            make = self._replies.reply
            if ask.reuse is None:  # then nothing is unchanged
                answered = make(ask, outcome, request)  # type: ignore[arg-type]
            else:
                answered = reused_reply(make, ask.reuse, ask, outcome, request)
        except Exception as fault:
            if isinstance(outcome, LinesOutcome):
                outcome.export.stop()
            answered = self._refusal(fault, request.path, ask.request_id)
            answered.headers.extend(ask.served.version_headers)
        if ask.trace is not None:
            ask.trace.tell(answered)
        return answered

    def _refusal(self, fault: Exception, path: bytes, request_id: str) -> HttpReply:
        if isinstance(fault, Problem):
            return problem_reply(fault, path, request_id)
        logger.error("request.failed", exc_info=fault, extra={"request_id": request_id})
        return problem_reply(Internal(), path, request_id)


def _trace_refusal(request: HttpRequest, reply: HttpReply, begun: float) -> None:
    """Tell who sent a trace, and was refused early, which one that was."""
    if any(name == b"traceparent" for name, _ in request.headers):
        traced = [(name, value) for name, value in request.headers if name == b"traceparent"]
        Trace(RequestHeaders(traced), begun).tell(reply)
