"""One round of health checks: ask every shard at once, then write down what they said.

Only an answer that fails its signature, or comes from another instance or database than the one
enrolled, is evidence against a shard and quarantines it; silence makes it down, and it heals.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.utils import timezone

from dispatcher_site.health.models import HealthSample
from dispatcher_site.registry.clients import client_for
from dispatcher_site.registry.deadline_http import NodeUnreachable
from dispatcher_site.registry.models import Shard
from dispatcher_site.registry.node_client import NodeClient
from dispatcher_site.registry.services import keyrings, shard_map, shards
from dispatcher_site.registry.services.counters import keyring_generation
from dispatcher_site.trust.actors import Actor
from modeldefs.wire.problems import Problem, ShardUntrusted

log = logging.getLogger("shardpoint.health")

ASKED_AT_ONCE = 16
SAMPLES_KEPT = timedelta(days=1)
WATCHER = Actor(kind="task", name="health", via="TASK")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one shard said, or the code of why it said nothing."""

    shard: str
    took_ms: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    untrusted: str = ""


def ask(shard: str, client: NodeClient, keyring_generation: int) -> Answer:
    """Ask one node how it is, and tell it the newest keyring; never raises for what it does."""
    begun = time.monotonic()
    facts: Mapping[str, Any] = {}
    code = untrusted = ""
    try:
        facts = client.health(keyring_generation=keyring_generation)
    except NodeUnreachable:
        code = "refused"
    except ShardUntrusted as failure:
        code, untrusted = failure.code, str(failure)
    except Problem as failure:
        code = failure.code
    return Answer(shard, (time.monotonic() - begun) * 1000, facts, code, untrusted)


def evidence_against(shard: Shard, answer: Answer) -> str:
    """Return why the answer shows that this is not the shard we enrolled, or nothing."""
    if answer.untrusted:
        return answer.untrusted
    if answer.code:
        return ""
    instance = str(answer.facts.get("instance", ""))
    if instance != str(shard.instance):
        return f"instance {instance} answers, {shard.instance} was enrolled"
    postgres = answer.facts.get("postgres") or {}
    system = str(postgres.get("system_identifier") or "")
    if system and shard.system_identifier and system != shard.system_identifier:
        return f"its Postgres is {system}, {shard.system_identifier} was enrolled"
    return ""


def _note(shard: Shard, answer: Answer) -> None:
    HealthSample.objects.create(
        shard=shard,
        at=timezone.now(),
        healthy=not answer.code,
        code=answer.code,
        took_ms=answer.took_ms,
        facts=dict(answer.facts),
    )
    evidence = evidence_against(shard, answer)
    if evidence and shard.state in shards.TRUSTED:
        log.error("shard.quarantined %s: %s", shard.name, evidence)
        shards.quarantine_shard(actor=WATCHER, name=shard.name, reason=evidence)
    elif not evidence:
        shards.note_health(name=shard.name, facts=None if answer.code else answer.facts)


def _catch_up() -> None:
    """Repair what the round showed: nodes with an old keyring or an old map."""
    generation, epoch = keyring_generation(), shard_map.current_epoch()
    serving = Shard.objects.filter(state=Shard.State.ACTIVE)
    if serving.filter(keyring_generation_seen__lt=generation).exists():
        keyrings.publish_keyring()
    if epoch and serving.filter(map_epoch_seen__lt=epoch).exists():
        shards.place_shards(actor=WATCHER, hold_rows=False)


def sample_health() -> list[Answer]:
    """Ask every shard that is not removed, write down the answers, repair what is behind."""
    asked = list(Shard.objects.exclude(state=Shard.State.REMOVED).filter(nodes__isnull=False))
    answers = _ask_all(asked)
    for shard, answer in zip(asked, answers, strict=True):
        _note(shard, answer)
    _catch_up()
    return answers


def _ask_all(asked: Sequence[Shard]) -> list[Answer]:
    if not asked:
        return []
    clients = [client_for(shard) for shard in asked]  # reads the database: not in the threads
    generations = [keyring_generation()] * len(asked)
    with ThreadPoolExecutor(max_workers=min(len(asked), ASKED_AT_ONCE)) as pool:
        return list(pool.map(ask, [shard.name for shard in asked], clients, generations))


def forget_old_samples() -> int:
    """Delete samples older than a day, and return how many."""
    return HealthSample.objects.filter(at__lt=timezone.now() - SAMPLES_KEPT).delete()[0]
