"""What the end of a call on a stream means to the client: a problem that names the shard."""

from __future__ import annotations

import msgspec

from dispatcher_site.gateway.streams import Streams
from modeldefs.wire import calls
from modeldefs.wire.problems import (
    Overloaded,
    Problem,
    ShardFault,
    ShardReset,
    ShardUnavailable,
    ShardUntrusted,
    problem_from_wire,
)

MOVED = frozenset({"wrong-shard", "stale-epoch"})


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
