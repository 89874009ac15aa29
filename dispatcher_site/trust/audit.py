"""The audit log: one hash chain of everything that anybody changed.

An entry is written in the transaction of the change it records, so there is no change without one
and none without a change. Entries are numbered without gaps under one advisory lock; each hash
covers the entry and the hash before it, so an edited or missing entry is found by ``verify``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from dispatcher_site.trust.actors import Actor
from dispatcher_site.trust.models import AuditEntry

AUDIT_LOCK = 0x5350_0001
GENESIS = "0" * 64
VERIFY_BATCH = 1000


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What ``verify`` found: how many entries, the head, and the first broken entry if any."""

    entries: int
    head: str
    broken_at: int | None = None
    reason: str = ""


def _stamp(at: datetime) -> str:
    return at.astimezone(timezone.get_default_timezone()).isoformat(timespec="microseconds")


def entry_hash(entry: AuditEntry) -> str:
    """Return the hash that the entry must have: over all its members and the hash before it."""
    members = {
        "id": entry.pk,
        "at": _stamp(entry.at),
        "actor_kind": entry.actor_kind,
        "actor": entry.actor,
        "via": entry.via,
        "ip": entry.ip,
        "request_id": entry.request_id,
        "action": entry.action,
        "target": entry.target,
        "before": entry.before,
        "after": entry.after,
        "reason": entry.reason,
        "dry_run": entry.dry_run,
        "outcome": entry.outcome,
        "prev_hash": entry.prev_hash,
    }
    text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def record(
    *,
    actor: Actor,
    action: str,
    target: str,
    before: Any = None,
    after: Any = None,
    reason: str = "",
    outcome: str = "done",
) -> AuditEntry:
    """Append one entry to the chain, inside the caller's transaction."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [AUDIT_LOCK])
        last = AuditEntry.objects.order_by("-pk").values_list("pk", "hash").first()
        number, prev_hash = last or (0, GENESIS)
        entry = AuditEntry(
            id=number + 1,
            at=timezone.now(),
            actor_kind=actor.kind,
            actor=actor.name,
            via=actor.via,
            ip=actor.ip,
            request_id=actor.request_id,
            action=action,
            target=target,
            before=before,
            after=after,
            reason=reason,
            outcome=outcome,
            prev_hash=prev_hash,
        )
        entry.hash = entry_hash(entry)
        entry.save(force_insert=True)
    return entry


def _chain() -> Iterator[AuditEntry]:
    return AuditEntry.objects.order_by("pk").iterator(chunk_size=VERIFY_BATCH)


def verify() -> ChainReport:
    """Read the whole chain and say whether every entry is what was written, and none is gone."""
    head, number = GENESIS, 0
    for entry in _chain():
        if entry.pk != number + 1:
            return ChainReport(number, head, number + 1, "this entry is missing")
        if entry.prev_hash != head:
            return ChainReport(number, head, entry.pk, "it does not follow the entry before it")
        if entry.hash != entry_hash(entry):
            return ChainReport(number, head, entry.pk, "it was changed after it was written")
        head, number = entry.hash, entry.pk
    return ChainReport(number, head)
