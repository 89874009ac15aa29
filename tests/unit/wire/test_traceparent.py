"""The `traceparent` header: the caller's trace goes on, and what is malformed begins a new one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldefs.wire.traceparent import TraceParent, own_span, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
ENTROPY = bytes(range(1, 25))


@pytest.mark.parametrize(
    "value, sampled",
    [(f"00-{TRACE}-{SPAN}-01", True), (f"00-{TRACE}-{SPAN}-02", False),
     (f"cc-{TRACE}-{SPAN}-01", True), (f"cc-{TRACE}-{SPAN}-01-what-comes", True)],
)  # fmt: skip
def test_the_trace_goes_on_with_a_span_of_our_own(value: str, sampled: bool) -> None:
    """Trace and sampling are the caller's, of later versions too; the span is ours."""
    own = own_span(value.encode(), ENTROPY)

    assert TraceParent(TRACE, ENTROPY[:8].hex(), sampled) == own
    assert f"00-{TRACE}-0102030405060708-0{int(sampled)}" == own.header()


@pytest.mark.parametrize(
    "value",
    ["", "00", f"00-{TRACE}-{SPAN}", f"00-{TRACE.upper()}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01",
     f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{SPAN}-01-more",
     f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01", f" 00-{TRACE}-{SPAN}-01",
     f"cc-{TRACE}-{SPAN}-01x"],
)  # fmt: skip
def test_what_is_malformed_counts_as_none(value: str) -> None:
    """A new trace begins, unsampled, and nothing of the header is taken over."""
    assert parse_traceparent(value.encode()) is None
    assert own_span(value.encode(), ENTROPY) == TraceParent(ENTROPY[8:].hex(), ENTROPY[:8].hex())


@given(st.binary(max_size=80))
def test_any_bytes_are_read_without_a_fault(value: bytes) -> None:
    """Whatever is sent, what we pass on is well-formed."""
    own = own_span(value, ENTROPY)

    assert parse_traceparent(own.header().encode()) == own
