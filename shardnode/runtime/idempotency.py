"""A write's key: under which a shard remembers what it answered, so that a repeat writes nothing.

The row is stored in the write's own transaction, on the shard that owns the bucket. What Postgres
or we refuse is rolled back and leaves no row: a repeat of it is tried anew. A refusal of the
author's own is an answer: it is stored, and what the function did before is not.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from modeldefs.kit.endpoints import Endpoint
from modeldefs.wire import calls
from modeldefs.wire.problems import IdempotencyKeyReused, Problem, problem_from_wire

_REFUSED = b"!"  # ahead of a stored problem; no JSON begins so


def stored_form(answer: bytes | Problem) -> str:
    """Return what is stored of an answer: its JSON, or the problem that it is."""
    if isinstance(answer, Problem):
        return (_REFUSED + json.dumps(answer.to_wire()).encode()).decode()
    return answer.decode()


@dataclass(frozen=True, slots=True)
class WriteKey:
    """What one write is remembered by."""

    scope: str  # 32 hex digits
    fingerprint: bytes
    hop: bool  # made by our own dispatcher for one request: its client knows no key

    def replay(self, fingerprint: bytes, body: bytes) -> calls.Replayed | Problem:
        """Return the stored answer for a repeat.

        Raises:
            IdempotencyKeyReused: The key was used for something else.
        """
        if fingerprint != self.fingerprint:
            raise IdempotencyKeyReused
        if body[:1] != _REFUSED:
            return calls.Replayed(body)
        problem = problem_from_wire(json.loads(body[1:]))
        if not self.hop:
            problem.headers = (*problem.headers, ("idempotency-replayed", "true"))
        return problem


def scope_of(principal: str, endpoint: str, key: str) -> str:
    """Return where a key is remembered: equal for equal principal, endpoint and key only.

    A hash of 128 bits instead of three texts: its index entry is a fifth as large, and every
    write pays for one.
    """
    parts = [part.encode() for part in (principal, endpoint, key)]
    joined = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return hashlib.blake2b(joined, digest_size=16, person=b"sp-idempotency").hexdigest()


def key_of(endpoint: Endpoint[Any, Any], call: calls.Call | calls.ManyCall) -> WriteKey | None:
    """Return the key that a call came with; None if it has none and is done each time."""
    if not call.idempotency_key:
        return None
    # A client's key and one of the dispatcher's own never meet, whatever texts they are.
    name = f"{'hop' if call.hop else 'key'}:{call.idempotency_key}"
    return WriteKey(
        scope_of(call.principal, endpoint.name, name), bytes(call.fingerprint), call.hop
    )
