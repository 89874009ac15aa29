"""Answers of reads that may be used again, as they are kept: their bytes, age and worth.

What is kept is the outcome, not the reply: cursors, links and ids are made anew for each request.
It is kept under a name that no other cluster or caller has, and signed, so that nobody who writes
to the store without this site's secret is answered from it. Pure: the time is passed in.
"""

from __future__ import annotations

import hmac
from typing import Any

import msgspec

from modeldefs.kit.asks import Ask, GroupsOutcome, Outcome, PageOutcome, Shards
from modeldefs.kit.caching import Cache
from modeldefs.kit.replies import groups_json
from modeldefs.wire.problems import Problem

ANSWER_BYTES_MAX = 1_048_576
_MAC_BYTES = 16
_UNTRUSTED = frozenset({"quarantined", "shard-untrusted"})


class KeptAnswer(msgspec.Struct, array_like=True):
    """One answer, and when it was asked for."""

    at: float
    asked: int  # how many shards
    rows: bytes  # of a page joined by commas; of groups and totals the whole value
    is_page: bool = True
    last: list[Any] | None = None
    more: bool = False
    tags: tuple[str, ...] = ()

    def outcome(self) -> Outcome:
        """Return what the shards answered then."""
        shards = Shards(self.asked, self.asked)
        if self.is_page:
            return PageOutcome(self.rows, self.last, self.more, shards)
        return GroupsOutcome([], shards, self.rows)


_decoder = msgspec.msgpack.Decoder(KeptAnswer)


def name_of(secret: bytes, identity: str) -> str:
    """Return where an answer is kept."""
    return "shardpoint:answer:" + hmac.digest(secret, identity.encode(), "sha256").hex()[:40]


def pack(secret: bytes, name: str, kept: KeptAnswer) -> bytes:
    """Return what is stored, signed together with its name."""
    body = msgspec.msgpack.encode(kept)
    return _mac(secret, name, body) + body


def unpack(secret: bytes, name: str, stored: bytes) -> KeptAnswer | None:
    """Return what was stored; None if this site did not store it, here."""
    mac, body = stored[:_MAC_BYTES], stored[_MAC_BYTES:]
    if not hmac.compare_digest(_mac(secret, name, body), mac):
        return None
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError:
        return None


def _mac(secret: bytes, name: str, body: bytes) -> bytes:
    return hmac.digest(secret, name.encode() + b"\0" + body, "sha256")[:_MAC_BYTES]


def kept_of(ask: Ask, outcome: Outcome, at: float) -> KeptAnswer | None:
    """Return an answer to be kept; None if it must not be: it lacks something, or is too large."""
    assert ask.reuse is not None
    if isinstance(outcome, GroupsOutcome):
        value = outcome.value or groups_json(ask, outcome.rows)
        kept = KeptAnswer(at, outcome.shards.asked, value, is_page=False)
    elif isinstance(outcome, PageOutcome):
        is_absent = ask.served.is_single and not outcome.rows
        if outcome.lagging or outcome.count is not None or is_absent:
            return None
        shards = outcome.shards
        kept = KeptAnswer(at, shards.asked, outcome.rows, True, outcome.last, outcome.more)
    else:
        return None
    is_whole = not outcome.shards.missing and outcome.shards.coverage == 1
    if not is_whole or len(kept.rows) > ANSWER_BYTES_MAX:
        return None
    kept.tags = tuple(ask.reuse.tags)
    return kept


def is_fresh(cache: Cache, age_s: float) -> bool:
    """May an answer of this age be given unasked?"""
    return 0 <= age_s < cache.max_age_s


def may_stand_in(cache: Cache, age_s: float, problem: Problem) -> bool:
    """May an answer of this age be given in the place of a problem?

    Only where shards cannot be asked now: never for what a request is refused for, nor for a shard
    that is not trusted.
    """
    if problem.status not in (503, 504) or not 0 <= age_s <= cache.kept_s:
        return False
    return not any(fault.code in _UNTRUSTED for fault in problem.shards)
