"""From a request whose key is known to a checked ask: scope, method, parameters, cursor, plan.

Whatever is wrong is a problem before a backend hears of it. A read whose request is plainly right
takes ``quick``; whatever is not is left to ``ask``, which says what is wrong with it. Invariant:
where ``quick`` gives an ask, ``ask`` gives the same one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from modeldefs.kit.asks import Ask, Served
from modeldefs.kit.catalog import Catalog
from modeldefs.kit.conditions import conditions_of
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.many_requests import ManyReader
from modeldefs.kit.plans import ReadPlan
from modeldefs.kit.preferences import NOTHING, honoured
from modeldefs.kit.replies import cursor_binding
from modeldefs.kit.request_headers import JSON_TYPE, RequestHeaders, idempotency_key_of
from modeldefs.kit.requests import ReadRequest, RequestReader
from modeldefs.kit.reuse import reuse_of
from modeldefs.wire.cursors import START, Stand, read_cursor
from modeldefs.wire.http1 import HttpRequest
from modeldefs.wire.keys import Principal, required_scope
from modeldefs.wire.problems import (
    CursorInvalid,
    DefinitionFault,
    Forbidden,
    InputError,
    InvalidRequest,
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedMediaType,
)

logger = logging.getLogger(__name__)


class AskReader:
    """Reads the requests of one worker process."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        cursor_key: bytes,
        clock: Callable[[], float],
        is_part: bool = False,
    ) -> None:
        self._is_part = is_part  # of the rows: then an export may be of that part
        self._catalog = catalog
        self._cursor_key = cursor_key
        self._clock = clock

    def quick(
        self,
        served: Served,
        request: HttpRequest,
        headers: RequestHeaders,
        principal: Principal,
        request_id: str,
    ) -> Ask | None:
        """Return the ask of a read whose request is without a flaw; None: look closer with ask."""
        if request.method != b"GET" or not headers.is_plain or request.body:
            return None
        # Endpoint, version and scope were looked at before: kit.served_versions.
        if served not in principal.plain:
            return None
        asked = served.quick.read_url(request.query)
        if asked is None:
            return None
        mask = asked.mask
        plan = served.plans.get(mask)
        if plan is None or principal.row_filter is not None:
            return None
        return Ask(
            served,
            plan,
            mask,
            asked.values,
            1 if served.is_single else asked.limit,
            None,
            principal,
            request_id,
            headers.timeout_ms,
        )

    def ask(
        self,
        served: Served,
        request: HttpRequest,
        headers: RequestHeaders,
        principal: Principal,
        request_id: str,
    ) -> Ask:
        """Return the ask of a request.

        Raises:
            Problem: Why it cannot be asked.
        """
        method = request.method
        _check_caller(served, method, principal)
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
            is_whole = is_export and not self._is_part
            prefers = honoured(headers.preferences, served.endpoint, is_export=is_whole)
        conditions = None
        if headers.is_conditional or served.needs_match:
            conditions = conditions_of(headers, served.endpoint, method, is_export=is_export)
        mask = served.mask_of(asked.values)
        plan = None
        stand = START
        if served.verb == "read":
            plan = self._plan(served, mask)
            if asked.after is not None:
                stand = self._stand(served, plan, asked, principal, is_export=is_export)
        if principal.row_filter is not None:
            _check_filter(served, plan, principal.row_filter)
        ask = Ask(
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
            conditions=conditions,
        )
        if plan is not None:
            ask.reuse = reuse_of(ask, method, bundle=self._catalog.bundle_id, now=self._clock())
        return ask

    def _stand(
        self,
        served: Served,
        plan: ReadPlan,
        asked: ReadRequest,
        principal: Principal,
        *,
        is_export: bool,
    ) -> Stand:
        """Return how far the walk of a request's cursor has come."""
        assert asked.after is not None
        stand = read_cursor(
            self._cursor_key,
            asked.after,
            endpoint=served.endpoint.name,
            binding=cursor_binding(served, asked.values, principal),
            now=self._clock(),
        )
        if stand.lagging:
            _check_lagging(plan, is_export=is_export)
        return stand

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


def _check_caller(served: Served, method: bytes, principal: Principal) -> None:
    """Refuse a method that the endpoint has not, and a caller who lacks its scope."""
    if method not in served.methods:
        raise MethodNotAllowed(headers=[("allow", served.allow)])
    if not principal.may(served.model, served.version, served.endpoint.name, served.verb):
        scope = required_scope(served.model, served.version, served.endpoint.name, served.verb)
        raise Forbidden(f"the API key lacks the scope {scope}")


def _check_lagging(plan: ReadPlan, *, is_export: bool) -> None:
    """Refuse a cursor with ranges that stand behind the others where they could be passed by."""
    if is_export:
        raise CursorInvalid("its walk lacked a shard: go on by pages until its rows came")
    if plan.ranged is None or plan.route.reach not in ("scatter", "list"):
        raise CursorInvalid("its walk lacked a shard, and is of another kind now")


def _check_filter(served: Served, plan: ReadPlan | None, row_filter: Mapping[str, str]) -> None:
    """Refuse what could not be answered with the rows of the caller's filter alone."""
    if plan is None:
        model: Any = served.endpoint.model
        taken: frozenset[str] | None = frozenset(model.shard.filter)
    else:
        taken = plan.takes
    if taken is not None and not row_filter.keys() <= taken:
        lacks = ", ".join(sorted(row_filter.keys() - taken))
        raise Forbidden(
            f"the key may see rows of its own {lacks} only, by which {served.name} cannot filter"
        )


def _export_reader(served: Served, request: HttpRequest) -> RequestReader:
    if not request.takes_chunks:
        raise NotAcceptable("application/jsonl is streamed, for which HTTP/1.0 is too old")
    assert served.export_reader is not None
    return served.export_reader
