"""Requests made from an OpenAPI document, half of them as it says and half against it.

Every answer must be one that the document describes: its status, media type, headers and body,
and never a 5xx. The same requests are made each time; SHARDPOINT_TEST_CASES asks for more of them
per operation.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
LENGTH_MAX = 64
SEED = 20_261_123
Send = Callable[[Any], Response]


def cases_each(default: int) -> int:
    """Return how many requests each operation gets in each of the two modes."""
    return int(os.environ.get("SHARDPOINT_TEST_CASES", default))


def shortened(told: Any) -> Any:
    """Return a document whose texts are short: long ones are other tests', and cost minutes."""
    if isinstance(told, Mapping):
        return {
            name: min(value, LENGTH_MAX)
            if name == "maxLength" and isinstance(value, int)
            else shortened(value)
            for name, value in told.items()
        }
    return [shortened(each) for each in told] if isinstance(told, list) else told


def exercise(document: Mapping[str, Any], send: Send, *, each: int) -> Counter[tuple[str, int]]:
    """Send requests to every operation; return how often each answered with which status.

    Raises:
        AssertionError: Answers are not as described, with the requests that got them.
    """
    seen: Counter[tuple[str, int]] = Counter()
    wrong: list[str] = []
    schema = schemathesis.openapi.from_dict(shortened(document))
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                _ask(operation, mode, send, seen, each)
            except FailureGroup as found:
                wrong.append(str(found))
            except Unsatisfiable:  # what takes nothing cannot be asked against its description
                assert mode is GenerationMode.NEGATIVE
    assert [] == wrong, "\n\n".join(wrong)
    return seen


def _ask(
    operation: Any,
    mode: GenerationMode,
    send: Send,
    seen: Counter[tuple[str, int]],
    each: int,
) -> None:
    name = str(operation.definition.raw["operationId"])

    @seed(SEED)
    @settings(
        max_examples=each,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def answered(case: Any) -> None:
        response = send(case)
        seen[name, response.status_code] += 1
        case.validate_response(response, checks=CHECKED)

    answered()
