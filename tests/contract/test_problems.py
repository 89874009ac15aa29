"""Problems are a contract: codes, statuses and the shape of the body never change by accident."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from modeldefs.wire.problems import (
    STANDARD_PROBLEMS,
    ClockSkew,
    Conflict,
    InputError,
    Internal,
    InvalidRequest,
    Overloaded,
    Problem,
    ShardFault,
    ShardUnavailable,
    Unauthorized,
    WrongShard,
    problem_body,
    problem_from_wire,
    problem_headers,
)

STATUSES = {
    "invalid-request": 400,
    "cursor-invalid": 400,
    "cursor-expired": 400,
    "idempotency-key-missing": 400,
    "result-too-large": 400,
    "unauthorized": 401,
    "clock-skew": 401,
    "forbidden": 403,
    "unknown-endpoint": 404,
    "not-found": 404,
    "method-not-allowed": 405,
    "not-acceptable": 406,
    "request-timeout": 408,
    "conflict": 409,
    "in-flight": 409,
    "idempotency-key-reused": 422,
    "stale": 412,
    "precondition-required": 428,
    "stale-epoch": 409,
    "contract-mismatch": 409,
    "unknown-version": 400,
    "version-conflict": 400,
    "version-retired": 410,
    "body-too-large": 413,
    "uri-too-long": 414,
    "unsupported-media-type": 415,
    "wrong-shard": 421,
    "quota-exceeded": 429,
    "header-too-large": 431,
    "internal": 500,
    "definition-fault": 500,
    "shard-untrusted": 502,
    "shard-reset": 502,
    "shard-unavailable": 503,
    "overloaded": 503,
    "transaction-conflict": 503,
    "not-primary": 503,
    "shard-behind": 503,
    "storage-full": 503,
    "deadline-exceeded": 504,
}
RETRYABLE = {
    "in-flight",
    *("request-timeout", "stale-epoch", "wrong-shard", "quota-exceeded", "shard-unavailable"),
    *("overloaded", "transaction-conflict", "not-primary", "shard-behind", "deadline-exceeded"),
}
KINDS = sorted(STANDARD_PROBLEMS.values(), key=lambda kind: kind.code)


class NoFunds(Problem):
    """The account holds less than that."""

    code = "no-funds"
    status = 409


def test_codes_and_statuses() -> None:
    """The codes and their statuses are these; one more is a change of the contract."""
    assert STATUSES == {kind.code: kind.status for kind in KINDS}


def test_codes_are_unique() -> None:
    """No two classes have one code."""
    counted = Counter(kind.code for kind in Problem.__subclasses__())

    assert {1} == set(counted.values())


def test_what_may_be_tried_again() -> None:
    """Only these are worth a retry."""
    assert RETRYABLE == {kind.code for kind in KINDS if kind.retryable}


@pytest.mark.parametrize("kind", KINDS, ids=[kind.code for kind in KINDS])
def test_every_problem_has_its_own_title(kind: type[Problem]) -> None:
    """A title is the class's own docstring: one sentence, like no other."""
    titles = Counter(each.title() for each in KINDS)

    assert kind.__doc__
    assert kind.title().endswith(".")
    assert 1 == titles[kind.title()]


def test_golden_body() -> None:
    """The JSON of a problem is this, byte for byte."""
    problem = ShardUnavailable(
        "two shards are missing",
        shards=[ShardFault("s1", "recovering", 1.26), ShardFault("s2", "refused")],
        retry_after_ms=1500,
    )

    assert (
        b'{"type":"/problems/shard-unavailable","code":"shard-unavailable",'
        b'"title":"A shard that holds part of the answer cannot be asked now.","status":503,'
        b'"detail":"two shards are missing","instance":"/get_user","request_id":"abc",'
        b'"retryable":true,"retry_after_ms":1500,'
        b'"shards":[{"id":"s1","code":"recovering","ms":1.3},'
        b'{"id":"s2","code":"refused","ms":0.0}]}'
    ) == problem_body(problem, instance="/get_user", request_id="abc")


def test_golden_errors() -> None:
    """A breach names its parameter or its place, its code and what is wrong."""
    problem = InvalidRequest(
        errors=[
            InputError("unknown-parameter", "is not known", "cuontry"),
            InputError("wrong-type", "is not an integer", "id", "/id"),
            InputError("too-deep", "is nested too deep", pointer=""),
        ]
    )

    assert [
        {"parameter": "cuontry", "code": "unknown-parameter", "detail": "is not known"},
        {"parameter": "id", "pointer": "/id", "code": "wrong-type", "detail": "is not an integer"},
        {"pointer": "", "code": "too-deep", "detail": "is nested too deep"},
    ] == json.loads(problem_body(problem))["errors"]


@pytest.mark.parametrize("kind", KINDS, ids=[kind.code for kind in KINDS])
def test_wire_round_trip(kind: type[Problem]) -> None:
    """What a node refuses arrives at the client as the node said it."""
    sent = kind(
        "because",
        errors=[InputError("wrong-type", "is no", "id", "/id")],
        shards=[ShardFault("s1", "down", 2.5)],
        retry_after_ms=7,
        members={"owner": "s2"},
    )
    found = problem_from_wire(json.loads(json.dumps(sent.to_wire())))

    assert kind is type(found)
    assert sent.document() == found.document()
    assert sent.headers == found.headers


def test_author_s_own_problem_round_trips() -> None:
    """A problem that a definition declares keeps its code and status through the dispatcher."""
    found = problem_from_wire(NoFunds("only 5 left").to_wire())

    assert (NoFunds, "only 5 left") == (type(found), found.detail)


@pytest.mark.parametrize("document", [{}, {"code": "nonsense"}, {"code": None}])
def test_unknown_code_is_internal(document: dict[str, object]) -> None:
    """A code that nobody knows is our own fault, not the client's."""
    assert Internal is type(problem_from_wire(document))


@pytest.mark.parametrize(
    "problem, headers",
    [
        (Conflict(), []),
        (Unauthorized(), [("www-authenticate", 'Bearer realm="shardpoint"')]),
        (Overloaded(), [("retry-after", "1")]),
        (Overloaded(retry_after_ms=1), [("retry-after", "1")]),
        (Overloaded(retry_after_ms=1001), [("retry-after", "2")]),
        (WrongShard(headers=[("location", "/x")]), [("location", "/x")]),
        (ClockSkew(), []),
    ],
)
def test_headers(problem: Problem, headers: list[tuple[str, str]]) -> None:
    """A problem is never cached, and says when to come back."""
    assert [
        ("content-type", "application/problem+json"),
        ("cache-control", "no-store"),
        *headers,
    ] == problem_headers(problem)


def test_half_a_surrogate_does_not_cost_the_answer() -> None:
    """A detail that quotes half a surrogate pair is still sent."""
    found = json.loads(problem_body(InvalidRequest("a\ud800b")))

    assert "a?b" == found["detail"]
