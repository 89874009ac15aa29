"""What the end of a call on a stream means to the client: a problem that names the shard."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dispatcher_site.gateway.streams import Streams
from modeldefs.wire import calls
from modeldefs.wire.problems import (
    DeadlineExceeded,
    Overloaded,
    Problem,
    ShardFault,
    ShardReset,
    ShardUnavailable,
    ShardUntrusted,
    problem_from_wire,
)

MOVED = frozenset({"wrong-shard", "stale-epoch"})
# What says of a shard that it cannot answer now, not of the request that it is wrong.
ABSENT = frozenset(
    {
        "shard-unavailable", "shard-reset", "shard-untrusted", "shard-behind", "overloaded",
        "deadline-exceeded", "not-primary", "storage-full", "contract-mismatch", "clock-skew",
    }
)  # fmt: skip


def problem_of(streams: Streams, shard: str, status: int, body: bytes) -> Problem:
    """Return the problem for an answer that is none: the node's own, or the stream's code."""
    if status:
        try:
            problem = problem_from_wire(calls.decode_plain(body))
        except (msgspec.DecodeError, TypeError, AttributeError):
            return untrusted(shard)
        return problem if problem.status == status else untrusted(shard)
    code = body.decode("ascii", "replace")
    if code == "saturated":
        return Overloaded(shards=[ShardFault(shard, code)], retry_after_ms=1_000)
    if code == "shard-reset":
        return ShardReset(shards=[ShardFault(shard, code)])
    if code == "shard-untrusted":
        return ShardUntrusted(shards=[ShardFault(shard, code)])
    return ShardUnavailable(shards=[ShardFault(shard, streams.state_of(shard))])


def untrusted(*shards: str) -> ShardUntrusted:
    """Return the problem for an answer that no node of ours would give."""
    return ShardUntrusted(shards=[ShardFault(shard, "malformed-answer") for shard in shards])


def unsettled(shard: str) -> ShardUnavailable:
    """Return the problem for a shard and a map that still disagree after a refresh."""
    return ShardUnavailable(shards=[ShardFault(shard, "routing-unsettled")])


def absence_of(problem: Problem, shard: str, took_ms: float) -> ShardFault:
    """Return why a shard is missing in an answer that its problem is not the end of."""
    for fault in problem.shards:
        if fault.id == shard:
            return ShardFault(shard, fault.code, took_ms)
    return ShardFault(shard, problem.code, took_ms)


def none_answered(faults: Sequence[ShardFault]) -> Problem:
    """Return the problem for an answer of which every part is missing."""
    if all(fault.code == "deadline-exceeded" for fault in faults):
        return DeadlineExceeded(shards=faults)
    return ShardUnavailable(shards=faults)
