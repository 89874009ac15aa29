"""The `traceparent` header: which trace a request belongs to, across systems.

One that is malformed counts as none: a new trace begins. Ours carries the caller's trace and flags
and a span of our own. Source: W3C Trace Context, section 3.2. Pure: chance is passed in.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# A later version may say more behind a dash; of version 00 that is all.
_FORM = re.compile(
    rb"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    rb"(?P<more>-.*)?"
)
_SAMPLED = 0x01


class TraceParent(NamedTuple):
    """One span of one trace."""

    trace_id: str
    span_id: str
    is_sampled: bool = False

    def header(self) -> str:
        """Return it as a header's value."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"


def parse_traceparent(value: bytes) -> TraceParent | None:
    """Return what a header says; None if it is malformed."""
    found = _FORM.fullmatch(value)
    if found is None or found["version"] == b"ff" or (found["version"] == b"00" and found["more"]):
        return None
    trace, span = found["trace"].decode(), found["span"].decode()
    if not int(trace, 16) or not int(span, 16):
        return None
    return TraceParent(trace, span, bool(int(found["flags"], 16) & _SAMPLED))


def own_span(value: bytes, entropy: bytes) -> TraceParent:
    """Return our span in the caller's trace, or in a new one.

    Args:
        value: What the caller sent.
        entropy: 24 random bytes.
    """
    above = parse_traceparent(value)
    span = entropy[:8].hex()
    if above is None:
        return TraceParent(entropy[8:24].hex(), span)
    return TraceParent(above.trace_id, span, above.is_sampled)
