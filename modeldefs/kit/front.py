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
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from modeldefs.kit.catalog import Catalog, shard_key_parameter
from modeldefs.kit.endpoints import RESERVED_PATHS, Endpoint
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.request_headers import RequestHeaders
from modeldefs.kit.requests import ReadRequest, RequestReader
from modeldefs.wire.cursors import binding_of, read_cursor, sign_cursor
from modeldefs.wire.http1 import Cancel, HttpReply, HttpRequest, Reply
from modeldefs.wire.keys import Principal, required_scope
from modeldefs.wire.problems import (
    DefinitionFault,
    Forbidden,
    InputError,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    Problem,
    UnknownEndpoint,
    UnsupportedMediaType,
    problem_body,
    problem_headers,
)

logger = logging.getLogger(__name__)

JSON_HEADERS = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"private, no-cache"),
    (b"vary", b"authorization, x-api-key, api-version, prefer, accept"),
]
_ENDPOINT_PATH = re.compile(rb"/[A-Za-z][A-Za-z0-9_]{0,99}\Z")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Shards:
    """How many shards were asked, for the envelope of an answer."""

    asked: int
    answered: int
    coverage: float = 1.0  # the share of all buckets that the answer is about


@dataclass(frozen=True, slots=True)
class PageOutcome:
    """Rows as JSON joined by commas, the last row's place in the order, and whether more."""

    rows: bytes
    last: list[Any] | None
    more: bool
    shards: Shards


@dataclass(frozen=True, slots=True)
class GroupsOutcome:
    """Groups in answer order: cells as JSON values, by column."""

    rows: list[list[Any]]
    shards: Shards


@dataclass(frozen=True, slots=True)
class Written:
    """The JSON of what a mutation returned."""

    body: bytes


Outcome = PageOutcome | GroupsOutcome | Written | Problem


@dataclass(slots=True)
class Ask:
    """A checked request, ready for the backend."""

    served: Served
    plan: ReadPlan | None  # None for a mutation
    mask: int
    values: dict[str, Any]
    limit: int
    after: list[Any] | None
    principal: Principal
    request_id: str
    timeout_ms: int

    def ordered_values(self) -> list[Any]:
        """Return the present parameters' texts in declared order, as a call carries them."""
        values = self.values
        return [values[name] for name in self.served.names if name in values]


class Backend(Protocol):
    """Whatever can answer a checked ask."""

    def submit(self, ask: Ask, done: Callable[[Outcome], None]) -> Cancel | None:
        """Answer by calling ``done`` once, in the loop's thread; return how to give it up."""


Authenticate = Callable[[bytes | None, str], Principal]


class Served:
    """One endpoint as this process serves it."""

    __slots__ = (
        "allow",
        "endpoint",
        "key_parameter",
        "methods",
        "model",
        "names",
        "path",
        "plans",
        "reader",
        "verb",
        "version",
    )

    def __init__(self, endpoint: Endpoint[Any, Any]) -> None:
        self.endpoint = endpoint
        self.path = b"/" + endpoint.name.encode()
        self.methods = {method.encode() for method in endpoint.methods}
        self.allow = ", ".join(sorted({m.decode() for m in self.methods} | {"OPTIONS"}))
        self.reader = RequestReader(endpoint)
        self.names = [spec.name for spec in endpoint.parameters]
        self.model = endpoint.model.__name__
        self.version = endpoint.version
        self.verb = "write" if endpoint.kind == "mutation" else "read"
        self.key_parameter = shard_key_parameter(endpoint) if self.verb == "write" else ""
        self.plans: dict[int, ReadPlan] = {}

    def mask_of(self, values: dict[str, Any]) -> int:
        """Return which parameters are present, one bit each in declared order."""
        mask = 0
        for bit, name in enumerate(self.names):
            if name in values:
                mask |= 1 << bit
        return mask


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
    ) -> None:
        self._catalog = catalog
        self._backend = backend
        self.authenticate = authenticate
        self._cursor_key = cursor_key
        self._clock = clock
        self.by_path = {served.path: served for served in map(Served, catalog.endpoints.values())}
        self._ids = itertools.count()
        self._id_prefix = secrets.token_hex(6)

    def claims(self, path: bytes) -> bool:
        """Is the path that of a data endpoint, or of one that somebody misspelt?"""
        return path in self.by_path or (
            _ENDPOINT_PATH.match(path) is not None and path[1:].decode() not in RESERVED_PATHS
        )

    def answer(self, request: HttpRequest, reply: Reply) -> Cancel | None:
        """Answer one request; every way out is one reply."""
        request_id = f"{self._id_prefix}{next(self._ids):08x}"
        try:
            served = self.by_path.get(request.path)
            # Who has no key learns no name: neither what there is nor what it answers.
            headers = RequestHeaders(request.headers)
            principal = self.authenticate(headers.key, request.client_host)
            if served is None:
                raise self._unknown(request.path)
            if request.method == b"OPTIONS":
                reply(HttpReply(204, b"", [(b"allow", served.allow.encode())]))
                return None
            ask = self._ask(served, request, headers, principal, request_id)
        except Problem as problem:
            reply(problem_reply(problem, request.path, request_id))
            return None
        except Exception:
            logger.exception("request.failed", extra={"request_id": request_id})
            reply(problem_reply(Internal(), request.path, request_id))
            return None

        def done(outcome: Outcome) -> None:
            try:
                answered = self._reply(ask, outcome, request)
            except Exception:
                logger.exception("answer.failed", extra={"request_id": request_id})
                answered = problem_reply(Internal(), request.path, request_id)
            reply(answered)

        return self._backend.submit(ask, done)

    def _unknown(self, path: bytes) -> UnknownEndpoint:
        name = path[1:].decode("ascii", "replace")
        near = difflib.get_close_matches(name[:100], self._catalog.endpoints, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        return UnknownEndpoint(f"there is no endpoint {name!r}{hint}")

    # -- the request -----------------------------------------------------------------------------

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
        if not headers.accepts_json:
            raise NotAcceptable(f"{served.endpoint.name} answers application/json")
        asked = self._read(served, request, headers, method)
        mask = served.mask_of(asked.values)
        plan = None
        after = None
        if served.verb == "read":
            plan = self._plan(served, mask)
            if asked.after is not None:
                after = read_cursor(
                    self._cursor_key,
                    asked.after,
                    endpoint=served.endpoint.name,
                    binding=_binding(served, asked.values, principal),
                    now=self._clock(),
                )
        return Ask(
            served,
            plan,
            mask,
            asked.values,
            1 if served.endpoint.shape == "single" else asked.limit,
            after,
            principal,
            request_id,
            headers.timeout_ms,
        )

    def _read(
        self, served: Served, request: HttpRequest, headers: RequestHeaders, method: bytes
    ) -> ReadRequest:
        has_body = bool(request.body) or headers.has_body
        if has_body and method in (b"GET", b"HEAD"):
            raise InvalidRequest(
                errors=[InputError("malformed-body", "a GET has no body", pointer="")]
            )
        if method == b"QUERY" and request.query:
            raise InvalidRequest(
                errors=[InputError("malformed-body", "QUERY takes its parameters in the body")]
            )
        return served.reader.read(
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

    # -- the answer ------------------------------------------------------------------------------

    def _reply(self, ask: Ask, outcome: Outcome, request: HttpRequest) -> HttpReply:
        if isinstance(outcome, Problem):
            return problem_reply(outcome, request.path, ask.request_id)
        headers = [
            *JSON_HEADERS,
            (b"api-version", b"%d" % ask.served.version),
            (b"x-request-id", ask.request_id.encode()),
        ]
        if isinstance(outcome, Written):
            return HttpReply(200, outcome.body, headers)
        envelope = _shards_json(outcome.shards)
        if outcome.shards.coverage < 1:
            headers.append((b"shardpoint-coverage", b"%.6g" % outcome.shards.coverage))
        if isinstance(outcome, GroupsOutcome):
            body = b'{"value":' + groups_json(ask, outcome.rows) + b',"shards":' + envelope + b"}"
            return HttpReply(200, body, headers)
        if ask.served.endpoint.shape == "single":
            if not outcome.rows and not ask.served.endpoint.optional_result:
                return problem_reply(NotFound(), request.path, ask.request_id)
            value = outcome.rows or b"null"
            return HttpReply(200, b'{"value":' + value + b',"shards":' + envelope + b"}", headers)
        return self._page_reply(ask, outcome, request, headers, envelope)

    def _page_reply(
        self,
        ask: Ask,
        outcome: PageOutcome,
        request: HttpRequest,
        headers: list[tuple[bytes, bytes]],
        envelope: bytes,
    ) -> HttpReply:
        following = b"null"
        if outcome.more and outcome.last is not None:
            cursor = sign_cursor(
                self._cursor_key,
                endpoint=ask.served.endpoint.name,
                binding=_binding(ask.served, ask.values, ask.principal),
                position=outcome.last,
                now=self._clock(),
            )
            following = b'"' + cursor.encode() + b'"'
            if request.method in (b"GET", b"HEAD"):
                link = _next_link(request, cursor)
                headers.append((b"link", b"<" + link + b'>; rel="next"'))
        body = b'{"items":[%b],"next":%b,"shards":%b}' % (outcome.rows, following, envelope)
        return HttpReply(200, body, headers)


def _binding(served: Served, values: dict[str, Any], principal: Principal) -> bytes:
    endpoint = served.endpoint
    return binding_of(
        endpoint=f"{endpoint.name}@{served.version}",
        order=endpoint.options.order,
        parameters=values,
        principal=principal.owner or principal.kid,
    )


def _next_link(request: HttpRequest, cursor: str) -> bytes:
    kept = [pair for pair in request.query.split(b"&") if pair and not pair.startswith(b"after=")]
    return request.path + b"?" + b"&".join([*kept, b"after=" + cursor.encode()])


def _shards_json(shards: Shards) -> bytes:
    return b'{"asked":%d,"answered":%d,"missing":[],"coverage":%.6g}' % (
        shards.asked,
        shards.answered,
        shards.coverage,
    )


def groups_json(ask: Ask, rows: list[list[Any]]) -> bytes:
    """Return groups as an array of objects, totals as one object, a single total as its value."""
    assert ask.plan is not None
    columns = ask.plan.columns
    texts = [n for n, column in enumerate(columns) if column.form.cell == "text"]
    for row in rows:
        for place in texts:
            if row[place] is not None and not isinstance(row[place], str):
                row[place] = str(row[place])
    names = [column.name for column in columns]
    if ask.served.endpoint.shape == "groups":
        return _encode([dict(zip(names, row, strict=True)) for row in rows])
    (row,) = rows
    if ask.served.endpoint.is_scalar:
        return _encode(row[0])
    return _encode(dict(zip(names, row, strict=True)))


def problem_reply(problem: Problem, path: bytes, request_id: str) -> HttpReply:
    """Return the reply for a problem, wherever it arose."""
    instance = path.decode("ascii", "replace")
    headers = [
        (name.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in problem_headers(problem)
    ]
    if request_id:
        headers.append((b"x-request-id", request_id.encode()))
    body = problem_body(problem, instance=instance, request_id=request_id)
    return HttpReply(problem.status, body, headers)
