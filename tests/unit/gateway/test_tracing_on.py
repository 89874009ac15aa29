"""A caller's trace goes on to every shard that works for it."""

from __future__ import annotations

from dispatcher_site.gateway.legs import body_of
from modeldefs.kit.request_headers import RequestHeaders
from modeldefs.kit.traces import Trace
from modeldefs.wire import calls
from tests.unit.gateway.scripted import ask

PARENT = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"


def test_the_trace_reaches_the_legs_of_a_scatter() -> None:
    """One shard or all of them: the same trace id, so their log lines can be found by it."""
    asked = ask("get_user", country="Sweden")
    asked.trace = Trace(RequestHeaders([(b"traceparent", PARENT)]), 0.0)

    single = calls.decode_call(calls.encode(asked.call(is_hop=True)))
    leg = calls.decode_call(body_of(asked, None, limit=5, after=None))

    assert asked.trace.header == single.trace == leg.trace
    assert "a" * 32 in leg.trace


def test_who_sends_no_trace_costs_none() -> None:
    """Nothing is sent along."""
    leg = calls.decode_call(body_of(ask("get_user", country="Sweden"), None, limit=5, after=None))

    assert "" == leg.trace
