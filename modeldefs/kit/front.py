"""The HTTP side of every data endpoint, the same on the dispatcher and on a node called directly.

One order of steps for every request: name, method, key, scope, parameters, cursor, then the
backend; nothing touches a row before all of them passed. What differs between the sites is the
backend alone: it gets a whole, checked ask and gives back one outcome.
"""

from __future__ import annotations

import difflib
import itertools
import logging
import re
import secrets
from collections.abc import Callable
from time import perf_counter

from modeldefs.kit.asks import (
    JSON_HEADERS,
    ONE_SHARD,
    Ask,
    Backend,
    GroupsOutcome,
    LinesOutcome,
    Outcome,
    PageOutcome,
    Served,
    Shards,
    Written,
)
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.endpoints import RESERVED_PATHS
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.key_quotas import LimitedCall, Quotas
from modeldefs.kit.many_requests import ManyReader
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.preferences import NOTHING, honoured
from modeldefs.kit.replies import ReplyMaker, cursor_binding, groups_json, problem_reply
from modeldefs.kit.request_headers import (
    JSON_TYPE,
    RequestHeaders,
    headers_of,
    idempotency_key_of,
)
from modeldefs.kit.requests import ReadRequest, RequestReader
from modeldefs.kit.traces import Trace
from modeldefs.kit.watching import Watch
from modeldefs.wire.cursors import START, read_cursor
from modeldefs.wire.http1 import Cancel, HttpReply, HttpRequest, JsonReply, Reply
from modeldefs.wire.keys import Principal, required_scope
from modeldefs.wire.meters import ABANDONED, BYTES_IN, OK, count
from modeldefs.wire.problems import (
    CursorInvalid,
    DefinitionFault,
    Forbidden,
    InputError,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotAcceptable,
    Overloaded,
    Problem,
    UnknownEndpoint,
    UnsupportedMediaType,
)

__all__ = [
    "JSON_HEADERS",
    "ONE_SHARD",
    "Ask",
    "Backend",
    "DataFront",
    "GroupsOutcome",
    "Outcome",
    "PageOutcome",
    "Served",
    "Shards",
    "Written",
    "groups_json",
    "problem_reply",
]

logger = logging.getLogger(__name__)

RETRY_AFTER_MS = 1_000
_ENDPOINT_PATH = re.compile(rb"/[A-Za-z][A-Za-z0-9_]{0,99}\Z")


Authenticate = Callable[[bytes | None, str], Principal]


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
        self._catalog = catalog
        self._backend = backend
        self.authenticate = authenticate
        self._cursor_key = cursor_key
        self._clock = clock
        self._replies = ReplyMaker(cursor_key=cursor_key, clock=clock)
        self._watch = watch = watch or Watch(catalog.endpoints)
        self._admission = watch.admission
        self._unknown_row = watch.row()
        self.by_path = {
            served.path: served
            for served in (
                Served(each, watch.row(each.name)) for each in catalog.endpoints.values()
            )
        }
        self._ids = itertools.count()
        self._id_prefix = secrets.token_hex(6)

    def claims(self, path: bytes) -> bool:
        """Is the path that of a data endpoint, or of one that somebody misspelt?"""
        return path in self.by_path or (
            _ENDPOINT_PATH.match(path) is not None and path[1:].decode() not in RESERVED_PATHS
        )

    def answer(self, request: HttpRequest, reply: Reply) -> Cancel | None:
        """Answer one request; every way out is one reply, counted once."""
        begun = perf_counter()
        request_id = f"{self._id_prefix}{next(self._ids):08x}"
        watch, admission = self._watch, self._admission
        served = self.by_path.get(request.path)
        row = self._unknown_row if served is None else served.row
        limited: LimitedCall | None = None
        try:
            headers = headers_of(request)
            principal = self.authenticate(headers.key, request.client_host)
            if principal.limits is not None:
                limited = self.quotas.begin(principal, reply)
                reply = limited.reply
            ask = self._admitted(request, served, headers, principal, limited, request_id, begun)
        except Exception as fault:
            reply(self._refused(fault, request, served, request_id, begun))
            return None
        if isinstance(ask, HttpReply):
            count(row, OK, perf_counter() - begun, 0)
            reply(ask)
            return None
        admission.in_flight += 1
        if request.body:
            row[BYTES_IN] += len(request.body)
        is_over = False

        def done(outcome: Outcome) -> None:
            nonlocal is_over
            if is_over:
                return
            is_over = True
            admission.in_flight -= 1
            answered = self._reply(ask, outcome, request)
            took_s = perf_counter() - begun
            if type(answered) is JsonReply:
                count(row, OK, took_s, len(answered.body))
                shards = getattr(outcome, "shards", ONE_SHARD)
                if took_s >= watch.slow_s or shards is not ONE_SHARD:
                    watch.note(ask, outcome, request, took_s)
            else:
                watch.count_other(row, served, request, answered, took_s, ask)
            reply(answered)

        def cancel() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                admission.in_flight -= 1
                row[ABANDONED] += 1
            assert give_up is not None
            give_up()

        give_up: Cancel | None = None
        try:
            give_up = self._backend.submit(ask, done)
        except Exception:
            logger.exception("submit.failed", extra={"request_id": request_id})
            done(Internal())
        return give_up and (limited.cancelling(cancel) if limited else cancel)

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
            raise self._unknown(request.path)
        if request.method == b"OPTIONS":
            return HttpReply(204, b"", [(b"allow", served.allow.encode())])
        admission = self._admission
        # The least of the limits: as long as it is not reached none of the others is looked at.
        is_busy = admission.in_flight >= admission.scatters_max
        if is_busy and not admission.admits(is_write=served.verb == "write"):
            raise Overloaded(retry_after_ms=RETRY_AFTER_MS)
        ask = self._quick_ask(served, request, headers, principal, request_id) or self._ask(
            served, request, headers, principal, request_id
        )
        if is_busy and ask.is_scatter and not admission.admits(is_scatter=True):
            raise Overloaded(retry_after_ms=RETRY_AFTER_MS)
        if limited is not None:
            limited.charge(self._backend.cost(ask))
        if headers.is_traced:
            ask.trace = Trace(headers, begun)
        return ask

    def _reply(self, ask: Ask, outcome: Outcome, request: HttpRequest) -> HttpReply:
        try:
            answered = self._replies.reply(ask, outcome, request)
        except Exception as fault:
            if isinstance(outcome, LinesOutcome):
                outcome.export.stop()
            answered = self._refusal(fault, request.path, ask.request_id)
        if ask.trace is not None:
            ask.trace.tell(answered)
        return answered

    def _refusal(self, fault: Exception, path: bytes, request_id: str) -> HttpReply:
        if isinstance(fault, Problem):
            return problem_reply(fault, path, request_id)
        logger.error("request.failed", exc_info=fault, extra={"request_id": request_id})
        return problem_reply(Internal(), path, request_id)

    def _unknown(self, path: bytes) -> UnknownEndpoint:
        name = path[1:].decode("ascii", "replace")
        near = difflib.get_close_matches(name[:100], self._catalog.endpoints, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        return UnknownEndpoint(f"there is no endpoint {name!r}{hint}")

    # -- the request -----------------------------------------------------------------------------

    def _quick_ask(
        self,
        served: Served,
        request: HttpRequest,
        headers: RequestHeaders,
        principal: Principal,
        request_id: str,
    ) -> Ask | None:
        """Return the ask of a read whose request is without a flaw; None: look closer."""
        if request.method != b"GET" or not headers.is_plain or request.body:
            return None
        if served.verb != "read" or not principal.may(
            served.model, served.version, served.name, "read"
        ):
            return None
        asked = served.quick.read_url(request.query)
        if asked is None:
            return None
        values, mask, limit = asked
        plan = served.plans.get(mask)
        if plan is None:
            return None
        return Ask(
            served,
            plan,
            mask,
            values,
            1 if served.is_single else limit,
            None,
            principal,
            request_id,
            headers.timeout_ms,
        )

    def _ask(
        self,
        served: Served,
        request: HttpRequest,
        headers: RequestHeaders,
        principal: Principal,
        request_id: str,
    ) -> Ask:
        method = request.method
        if method not in served.methods:
            raise MethodNotAllowed(headers=[("allow", served.allow)])
        if not principal.may(served.model, served.version, served.endpoint.name, served.verb):
            scope = required_scope(served.model, served.version, served.endpoint.name, served.verb)
            raise Forbidden(f"the API key lacks the scope {scope}")
        if headers.is_encoded:
            raise UnsupportedMediaType("a body with a Content-Encoding is not taken")
        reader = served.reader
        if headers.prefers_lines and served.export_reader is not None:
            reader = _export_reader(served, request)
        elif not headers.accepts_json:
            raise NotAcceptable(f"{served.endpoint.name} answers {served.answers}")
        is_export = reader is not served.reader
        asked = self._read(served, reader, request, headers)
        prefers = NOTHING
        if headers.preferences is not None:
            prefers = honoured(headers.preferences, served.endpoint, is_export=is_export)
        mask = served.mask_of(asked.values)
        plan = None
        stand = START
        if served.verb == "read":
            plan = self._plan(served, mask)
            if asked.after is not None:
                stand = read_cursor(
                    self._cursor_key,
                    asked.after,
                    endpoint=served.endpoint.name,
                    binding=cursor_binding(served, asked.values, principal),
                    now=self._clock(),
                )
                if stand.lagging:
                    _check_lagging(plan, is_export=is_export)
        return Ask(
            served,
            plan,
            mask,
            asked.values,
            1 if served.is_single else asked.limit,
            stand.position,
            principal,
            request_id,
            headers.timeout_ms,
            idempotency_key_of(headers, request.key_beside) if served.verb == "write" else "",
            is_export,
            prefers=prefers,
            lagging=stand.lagging,
        )

    def _read(
        self,
        served: Served,
        reader: RequestReader | ManyReader,
        request: HttpRequest,
        headers: RequestHeaders,
    ) -> ReadRequest:
        method = request.method
        has_body = bool(request.body) or headers.has_body
        if has_body and method in (b"GET", b"HEAD"):
            raise InvalidRequest(
                errors=[InputError("malformed-body", "a GET has no body", pointer="")]
            )
        if method == b"QUERY" and request.query:
            raise InvalidRequest(
                errors=[InputError("malformed-body", "QUERY takes its parameters in the body")]
            )
        is_plain = not request.query and headers.content_type == JSON_TYPE
        if request.body and is_plain and reader is served.reader:
            quick = served.quick.read_body(request.body)
            if quick is not None:
                return ReadRequest(quick.values, quick.limit)
        return reader.read(
            query=request.query,
            body=request.body,
            content_type=headers.content_type,
            has_body=has_body,
        )

    def _plan(self, served: Served, mask: int) -> ReadPlan:
        plan = served.plans.get(mask)
        if plan is None:
            names = frozenset(n for bit, n in enumerate(served.names) if mask >> bit & 1)
            try:
                plan = self._catalog.plan(served.endpoint, names)
            except DefinitionError:
                logger.exception("plan.failed", extra={"endpoint": served.endpoint.name})
                raise DefinitionFault from None
            served.plans[mask] = plan
        return plan


def _check_lagging(plan: ReadPlan, *, is_export: bool) -> None:
    """Refuse a cursor with ranges that stand behind the others where they could be passed by."""
    if is_export:
        raise CursorInvalid("its walk lacked a shard: go on by pages until its rows came")
    if plan.ranged is None or plan.route.reach not in ("scatter", "list"):
        raise CursorInvalid("its walk lacked a shard, and is of another kind now")


def _export_reader(served: Served, request: HttpRequest) -> RequestReader:
    if not request.takes_chunks:
        raise NotAcceptable("application/jsonl is streamed, for which HTTP/1.0 is too old")
    assert served.export_reader is not None
    return served.export_reader


def _trace_refusal(request: HttpRequest, reply: HttpReply, begun: float) -> None:
    """Tell who sent a trace, and was refused early, which one that was."""
    if any(name == b"traceparent" for name, _ in request.headers):
        traced = [(name, value) for name, value in request.headers if name == b"traceparent"]
        Trace(RequestHeaders(traced), begun).tell(reply)
