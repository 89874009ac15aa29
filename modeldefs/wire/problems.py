"""Every refusal of Shardpoint: one tree of problems, one body (RFC 9457), one code each.

A problem knows its stable ``code``, its HTTP status and whether trying again can help; where it is
raised does not matter, because ``problem_reply`` is the only renderer. Codes are never renamed.

Problem
├── InvalidRequest 400 ── CursorInvalid, CursorExpired, IdempotencyKeyMissing, ResultTooLarge
├── Unauthorized 401, ClockSkew 401, Forbidden 403
├── UnknownEndpoint 404, NotFound 404, MethodNotAllowed 405, NotAcceptable 406, RequestTimeout 408
├── Conflict 409, InFlight 409, StaleEpoch 409, ContractMismatch 409, VersionRetired 410
├── Stale 412, PreconditionRequired 428, IdempotencyKeyReused 422
├── BodyTooLarge 413, UriTooLong 414, UnsupportedMediaType 415, WrongShard 421, HeaderTooLarge 431
├── QuotaExceeded 429
├── Internal 500, DefinitionFault 500, ShardUntrusted 502, ShardReset 502
├── ShardUnavailable 503, Overloaded 503, TransactionConflict 503, NotPrimary 503, ShardBehind 503,
│   StorageFull 503
└── DeadlineExceeded 504

Pure: no framework, no clock, no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from modeldefs.wire.faults import InputError as InputError
from modeldefs.wire.faults import ShardFault as ShardFault
from modeldefs.wire.problem_base import Problem as Problem

PROBLEM_TYPE = "application/problem+json"


class InvalidRequest(Problem):
    """The request breaks the endpoint's contract; `errors` says where."""

    code = "invalid-request"
    status = 400


class CursorInvalid(Problem):
    """The cursor was altered, or belongs to another endpoint, caller or set of parameters."""

    code = "cursor-invalid"
    status = 400


class CursorExpired(Problem):
    """The cursor is older than 24 hours: start the walk again."""

    code = "cursor-expired"
    status = 400


class IdempotencyKeyMissing(Problem):
    """This endpoint asks for an Idempotency-Key header."""

    code = "idempotency-key-missing"
    status = 400


class ResultTooLarge(Problem):
    """The result is larger than the limit: ask for less, or page through it."""

    code = "result-too-large"
    status = 400


class Unauthorized(Problem):
    """A valid API key is needed, as `Authorization: Bearer spk_...`."""

    code = "unauthorized"
    status = 401

    def __init__(self, detail: str | None = None, **known: Any) -> None:
        known.setdefault("headers", (("www-authenticate", 'Bearer realm="shardpoint"'),))
        super().__init__(detail, **known)


class ClockSkew(Problem):
    """The clocks of dispatcher and node differ by more than 30 seconds."""

    code = "clock-skew"
    status = 401


class Forbidden(Problem):
    """The API key lacks the scope for this endpoint."""

    code = "forbidden"
    status = 403


class UnknownEndpoint(Problem):
    """There is no such endpoint."""

    code = "unknown-endpoint"
    status = 404


class NotFound(Problem):
    """There is no such thing."""

    code = "not-found"
    status = 404


class MethodNotAllowed(Problem):
    """The endpoint does not answer this method; `Allow` lists those it does."""

    code = "method-not-allowed"
    status = 405


class NotAcceptable(Problem):
    """The endpoint cannot answer in any media type that `Accept` names."""

    code = "not-acceptable"
    status = 406


class RequestTimeout(Problem):
    """The request did not arrive whole in time."""

    code = "request-timeout"
    status = 408
    retryable = True


class Conflict(Problem):
    """The write conflicts with what is stored."""

    code = "conflict"
    status = 409


class InFlight(Problem):
    """A request with this Idempotency-Key, or another write of the row, is still running."""

    code = "in-flight"
    status = 409
    retryable = True


class IdempotencyKeyReused(Problem):
    """This Idempotency-Key was used before, with other parameters."""

    code = "idempotency-key-reused"
    status = 422


class Stale(Problem):
    """The row is not, or no longer, as the condition of the request says: nothing was done."""

    code = "stale"
    status = 412


class PreconditionRequired(Problem):
    """This write is done only under `If-Match`, with the ETag of the row that it changes."""

    code = "precondition-required"
    status = 428


class StaleEpoch(Problem):
    """The caller's shard map is older than the one known here."""

    code = "stale-epoch"
    status = 409
    retryable = True


class ContractMismatch(Problem):
    """Caller and callee run different definitions."""

    code = "contract-mismatch"
    status = 409


class UnknownVersion(Problem):
    """There is no such version of the endpoint's model."""

    code = "unknown-version"
    status = 400


class VersionConflict(Problem):
    """The path names another version than `Api-Version`."""

    code = "version-conflict"
    status = 400


class VersionRetired(Problem):
    """This version of the model is no longer served."""

    code = "version-retired"
    status = 410


class BodyTooLarge(Problem):
    """The body is larger than the limit."""

    code = "body-too-large"
    status = 413


class UriTooLong(Problem):
    """The request line is too long: send the parameters as a JSON body."""

    code = "uri-too-long"
    status = 414


class UnsupportedMediaType(Problem):
    """The body must be application/json without a Content-Encoding."""

    code = "unsupported-media-type"
    status = 415


class WrongShard(Problem):
    """This shard does not own the row's bucket."""

    code = "wrong-shard"
    status = 421
    retryable = True


class HeaderTooLarge(Problem):
    """The headers are larger than the limit."""

    code = "header-too-large"
    status = 431


class QuotaExceeded(Problem):
    """The API key has used up its rate: wait `Retry-After` seconds."""

    code = "quota-exceeded"
    status = 429
    retryable = True


class Internal(Problem):
    """Something failed that should not: the request id finds it in the logs."""

    code = "internal"
    status = 500


class DefinitionFault(Problem):
    """The definition of this endpoint failed while it ran."""

    code = "definition-fault"
    status = 500


class ShardUntrusted(Problem):
    """A shard's answer did not prove that it came from that shard."""

    code = "shard-untrusted"
    status = 502


class ShardReset(Problem):
    """A shard broke off mid-answer: whether a write happened is unknown."""

    code = "shard-reset"
    status = 502


class ShardUnavailable(Problem):
    """A shard that holds part of the answer cannot be asked now."""

    code = "shard-unavailable"
    status = 503
    retryable = True


class Overloaded(Problem):
    """There is more to do than can be done in time: try again shortly."""

    code = "overloaded"
    status = 503
    retryable = True


class TransactionConflict(Problem):
    """The write met a concurrent one too often: try again."""

    code = "transaction-conflict"
    status = 503
    retryable = True


class NotPrimary(Problem):
    """The shard's database takes no writes now."""

    code = "not-primary"
    status = 503
    retryable = True


class ShardBehind(Problem):
    """The shard lacks a table or column of the current definitions."""

    code = "shard-behind"
    status = 503
    retryable = True


class StorageFull(Problem):
    """The shard's disk is full: reads go on, writes wait for an operator."""

    code = "storage-full"
    status = 503


class DeadlineExceeded(Problem):
    """The answer did not come before the deadline."""

    code = "deadline-exceeded"
    status = 504
    retryable = True


def _leaves(root: type[Problem]) -> Iterable[type[Problem]]:
    for kind in root.__subclasses__():
        yield kind
        yield from _leaves(kind)


STANDARD_PROBLEMS: Mapping[str, type[Problem]] = {kind.code: kind for kind in _leaves(Problem)}


def problem_kind(code: str) -> type[Problem] | None:
    """Return the class of a code, ours or an author's: all sides run the same definitions."""
    return STANDARD_PROBLEMS.get(code) or next(
        (own for own in _leaves(Problem) if own.code == code), None
    )


def problem_from_wire(document: Mapping[str, Any]) -> Problem:
    """Return the problem that ``Problem.to_wire`` described; an unknown code becomes Internal."""
    kind = problem_kind(str(document.get("code")))
    if kind is None:
        return Internal()
    return kind(
        str(document.get("detail") or kind.title()),
        errors=[InputError(**error) for error in document.get("errors") or ()],
        shards=[ShardFault(**fault) for fault in document.get("shards") or ()],
        retry_after_ms=document.get("retry_after_ms"),
        headers=[(str(name), str(value)) for name, value in document.get("headers") or ()],
        members=document.get("members"),
    )


def problem_body(problem: Problem, *, instance: str = "", request_id: str = "") -> bytes:
    """Return the UTF-8 JSON body of a problem."""
    document = problem.document(instance=instance, request_id=request_id)
    # A detail may quote what a client sent: half a surrogate pair must not cost us the answer.
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def problem_headers(problem: Problem) -> list[tuple[str, str]]:
    """Return the headers that go with a problem, names in lower case."""
    headers = [("content-type", PROBLEM_TYPE), ("cache-control", "no-store"), *problem.headers]
    if problem.retry_after_ms is not None:
        headers.append(("retry-after", str(max(1, -(-problem.retry_after_ms // 1000)))))
    elif problem.status == 503:
        headers.append(("retry-after", "1"))
    return headers
