"""From the backend's outcome to the bytes of a reply."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from modeldefs.kit.asks import (
    JSON_HEADERS,
    ONE_SHARD,
    Answer,
    Ask,
    GroupsOutcome,
    LinesOutcome,
    PageOutcome,
    Served,
    Shards,
    Written,
)
from modeldefs.kit.counting import count_member
from modeldefs.kit.preferences import NOTHING
from modeldefs.kit.request_headers import LINES_TYPE
from modeldefs.kit.requests import CURSOR_LENGTH_MAX
from modeldefs.kit.row_versions import ANSWER_TAG, ROW_TAG, version_of
from modeldefs.wire.cursors import Lagging, binding_of, sign_cursor
from modeldefs.wire.http1 import HttpReply, HttpRequest, JsonReply, ProblemReply, StreamReply
from modeldefs.wire.keys import Principal
from modeldefs.wire.problems import (
    NotFound,
    Problem,
    ShardUnavailable,
    problem_body,
    problem_headers,
)

# The one member of an export's last line when it broke off: no column can have this name.
PROBLEM_MEMBER = "$problem"
_LINES_HEADERS = [(b"content-type", LINES_TYPE), *JSON_HEADERS[1:]]

_TYPE = b"content-type"
NO_STORE = b"cache-control: no-store\r\n"

_encode = msgspec.json.Encoder().encode
# All that a header value in angle brackets may not hold.
_NOT_IN_LINK = re.compile(rb"[^!#-;=?-~]")


class ReplyMaker:
    """Renders outcomes for one worker process."""

    def __init__(self, *, cursor_key: bytes, clock: Callable[[], float]) -> None:
        self._cursor_key = cursor_key
        self._clock = clock

    def reply(self, ask: Ask, outcome: Answer, request: HttpRequest) -> HttpReply:
        """Return the reply to an ask that had this outcome."""
        served = ask.served
        if (
            served.is_single
            and type(outcome) is PageOutcome
            and outcome.shards is ONE_SHARD
            and outcome.rows
            and ask.prefers is NOTHING
            and ask.conditions is None
        ):
            # The most frequent one; the long way gives the same.
            etag = etag_of(ask, outcome.rows)
            head = b"%b%b\r\netag: %b\r\n" % (served.head, ask.request_id.encode(), etag)
            return JsonReply(_ONE_VALUE % outcome.rows, head)
        return self._reply(ask, outcome, request)

    def _reply(self, ask: Ask, outcome: Answer, request: HttpRequest) -> HttpReply:
        served = ask.served
        if isinstance(outcome, Problem):
            return _refused(ask, outcome, request)
        if isinstance(outcome, LinesOutcome):
            return self._lines_reply(ask, outcome, request)
        head = b"%b%b\r\n" % (served.head, ask.request_id.encode())
        if ask.prefers is not NOTHING and ask.prefers.applied:
            head += b"preference-applied: %b\r\n" % ask.prefers.applied
        if isinstance(outcome, Written):
            return _written_reply(ask, outcome, head)
        shards = outcome.shards
        envelope = _ONE_SHARD_JSON if shards is ONE_SHARD else _shards_json(shards)
        if shards.missing:
            # What is cached would be taken for the whole, once the shard is back.
            head = head.replace(ask.served.cache_line, NO_STORE, 1)
        if shards.coverage < 1:
            head += b"shardpoint-coverage: %.6g\r\n" % shards.coverage
        if isinstance(outcome, GroupsOutcome):
            value = outcome.value or groups_json(ask, outcome.rows)
        elif ask.served.is_single:
            return self._single_reply(ask, outcome, request, head, envelope)
        else:
            return self._page_reply(ask, outcome, request, head, envelope)
        return JsonReply(b'{"value":%b,"shards":%b}' % (value, envelope), head)

    def _single_reply(
        self, ask: Ask, outcome: PageOutcome, request: HttpRequest, head: bytes, envelope: bytes
    ) -> HttpReply:
        shards = outcome.shards
        if not outcome.rows and not ask.served.endpoint.optional_result:
            # Where a shard is missing nobody knows whether there is such a row.
            is_known = not shards.missing
            absent = NotFound() if is_known else ShardUnavailable(shards=shards.missing)
            return _refused(ask, absent, request)
        value = outcome.rows or b"null"
        is_whole = not shards.missing and shards.coverage == 1
        etag = etag_of(ask, value)
        if is_whole:
            head += b"etag: %b\r\n" % etag
        if ask.conditions is not None and ask.conditions.is_unchanged(etag) and is_whole:
            return without_content(304, head)
        return JsonReply(b'{"value":%b,"shards":%b}' % (value, envelope), head)

    def _page_reply(
        self, ask: Ask, outcome: PageOutcome, request: HttpRequest, head: bytes, envelope: bytes
    ) -> HttpReply:
        following = b"null"
        if outcome.more and (outcome.last is not None or outcome.shards.missing):
            cursor = self._cursor(ask, outcome.last, outcome.lagging)
            if outcome.lagging and len(cursor) > CURSOR_LENGTH_MAX:
                # Never a page whose missing rows no cursor leads to.
                unavailable = ShardUnavailable(shards=outcome.shards.missing)
                return _refused(ask, unavailable, request)
            if not outcome.rows:
                head += b"retry-after: 1\r\n"
            following = b'"' + cursor.encode() + b'"'
            if request.method in (b"GET", b"HEAD"):
                head += b'link: <%b>; rel="next"\r\n' % _next_link(request, cursor)
        counted = b"" if outcome.count is None else count_member(outcome.count)
        body = b'{"items":[%b],"next":%b,%b"shards":%b}' % (
            outcome.rows, following, counted, envelope
        )  # fmt: skip
        return JsonReply(body, head)

    def _cursor(
        self, ask: Ask, position: Sequence[Any] | None, lagging: Sequence[Lagging] = ()
    ) -> str:
        return sign_cursor(
            self._cursor_key,
            endpoint=ask.served.endpoint.name,
            binding=cursor_binding(ask.served, ask.values, ask.principal),
            position=position,
            now=self._clock(),
            lagging=lagging,
        )

    def _lines_reply(self, ask: Ask, outcome: LinesOutcome, request: HttpRequest) -> HttpReply:
        def last_line(problem: Problem, position: Sequence[Any] | None) -> bytes:
            document = problem.document(
                instance=request.path.decode("ascii", "replace"), request_id=ask.request_id
            )
            document["next"] = None if position is None else self._cursor(ask, position)
            return _encode({PROBLEM_MEMBER: document}) + b"\n"

        outcome.export.last_line = last_line
        headers = [
            *_LINES_HEADERS,
            *ask.served.version_headers,
            (b"x-request-id", ask.request_id.encode()),
        ]
        if outcome.shards.coverage < 1:
            headers.append((b"shardpoint-coverage", b"%.6g" % outcome.shards.coverage))
        return StreamReply(headers, outcome.export)


def _refused(ask: Ask, problem: Problem, request: HttpRequest) -> ProblemReply:
    """Return the reply for what went wrong after a version was chosen."""
    reply = problem_reply(problem, request.path, ask.request_id)
    reply.headers.extend(ask.served.version_headers)
    return reply


def cursor_binding(served: Served, values: dict[str, Any], principal: Principal) -> bytes:
    endpoint = served.endpoint
    return binding_of(
        endpoint=f"{endpoint.name}@{served.version}",
        order=endpoint.options.order,
        parameters=values,
        principal=principal.identity,
    )


def _next_link(request: HttpRequest, cursor: str) -> bytes:
    kept = [pair for pair in request.query.split(b"&") if pair and not pair.startswith(b"after=")]
    link = request.path + b"?" + b"&".join([*kept, b"after=" + cursor.encode()])
    return _NOT_IN_LINK.sub(lambda match: b"%%%02X" % match[0][0], link)


def _shards_json(shards: Shards) -> bytes:
    missing = b"[]"
    if shards.missing:
        missing = _encode([fault.document() for fault in shards.missing])
    late = b',"late":%d' % shards.late if shards.late else b""
    return b'{"asked":%d,"answered":%d,"missing":%b,"coverage":%.6g%b}' % (
        shards.asked,
        shards.answered,
        missing,
        shards.coverage,
        late,
    )


def etag_of(ask: Ask, value: bytes) -> bytes:
    """Return the ETag of an answer of one row, or of none."""
    assert ask.plan is not None
    form = ask.plan.tag_form
    if value == b"null" and ROW_TAG in form:
        form = form.replace(ROW_TAG, ANSWER_TAG)
    return form % version_of(value)


def _written_reply(ask: Ask, outcome: Written, head: bytes) -> HttpReply:
    if outcome.replayed:
        head += b"idempotency-replayed: true\r\n"
    has_row = ask.served.is_row and outcome.body != b"null"
    if has_row and not ask.prefers.rollback:  # else no such row is stored
        head += b"etag: " + ROW_TAG % version_of(outcome.body) + b"\r\n"
    if ask.prefers.minimal:
        return without_content(204, head)
    return JsonReply(outcome.body, head)


def without_content(status: int, head: bytes) -> HttpReply:
    """Return a reply without a body, from the head that the whole one would have had."""
    lines = (line.partition(b": ") for line in head.split(b"\r\n")[:-1])
    return HttpReply(status, b"", [(name, value) for name, _, value in lines if name != _TYPE])


_ONE_SHARD_JSON = _shards_json(ONE_SHARD)
_ONE_VALUE = b'{"value":%%b,"shards":%b}' % _ONE_SHARD_JSON


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


def problem_reply(problem: Problem, path: bytes, request_id: str) -> ProblemReply:
    """Return the reply for a problem, wherever it arose."""
    instance = path.decode("ascii", "replace")
    headers = [
        (name.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in problem_headers(problem)
    ]
    if request_id:
        headers.append((b"x-request-id", request_id.encode()))
    body = problem_body(problem, instance=instance, request_id=request_id)
    shards = [(fault.id, fault.code) for fault in problem.shards]
    return ProblemReply(problem.status, body, headers, problem.code, shards)
