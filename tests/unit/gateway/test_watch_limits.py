"""What a front takes as a sign of overload, and what it does not."""

from __future__ import annotations

import pytest

from modeldefs.kit.replies import problem_reply
from modeldefs.kit.request_headers import TIMEOUT_DEFAULT_MS
from modeldefs.kit.watching import Watch
from modeldefs.wire.http1 import HttpRequest
from modeldefs.wire.problems import DeadlineExceeded
from tests.unit.gateway.scripted import ask


def limits_after(timeout_ms: int) -> tuple[int, int]:
    """Return the limit before and after seconds in which every request ended at its deadline."""
    watch = Watch(["get_user"])
    asked = ask("get_user", country="Sweden")
    asked.timeout_ms = timeout_ms
    request = HttpRequest(b"GET", b"/get_user", b"", [], b"", "1.2.3.4")
    before = watch.admission.limit
    for n in range(40):
        for _ in range(60):
            reply = problem_reply(DeadlineExceeded(), request.path, "r")
            watch.count_other(watch.row("get_user"), None, request, reply, timeout_ms / 1e3, asked)
        watch.look(n * 0.1)
    return before, watch.admission.limit


@pytest.mark.parametrize("timeout_ms", [1, 50, TIMEOUT_DEFAULT_MS - 1])
def test_deadlines_that_clients_choose_too_short_refuse_nobody(timeout_ms: int) -> None:
    """Whoever asks for an answer within a moment gets none, and lowers the limit of no other."""
    before, after = limits_after(timeout_ms)

    assert before == after


def test_usual_deadlines_that_all_pass_lower_the_limit() -> None:
    """When nothing ends within the usual deadline fewer are taken on."""
    before, after = limits_after(TIMEOUT_DEFAULT_MS)

    assert after < before / 2
