"""Shards: enrolled, published to, trusted or not.

What a shard proved when it enrolled is kept, and every later answer is held against it. Only
security evidence quarantines a shard by itself, and only a person releases it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from dispatcher_site.registry.models import Job, Shard, ShardNode
from dispatcher_site.registry.services import jobs, shard_map
from dispatcher_site.registry.services.counters import raise_routing
from dispatcher_site.registry.services.enrolling import Enrolled, enrol
from dispatcher_site.trust import audit
from dispatcher_site.trust.actors import Actor
from modeldefs.wire.problems import Conflict, InputError, InvalidRequest, NotFound

CHECKS_MISSED_MAX = 3
SERVING = (Shard.State.ACTIVE, Shard.State.DRAINING, Shard.State.DOWN)
TRUSTED = (*SERVING, Shard.State.JOINING)


def get_shard(*, name: str) -> Shard:
    """Return a shard.

    Raises:
        NotFound: There is none of this name.
    """
    try:
        return Shard.objects.get(name=name)
    except Shard.DoesNotExist:
        raise NotFound(f"There is no shard {name!r}.") from None


def parse_instance(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``.

    Raises:
        InvalidRequest: It is neither.
    """
    host, _, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        error = InputError("wrong-type", f"{text!r} is not host:port", parameter="instances")
        raise InvalidRequest(errors=[error])
    return host, int(port)


@transaction.atomic
def _store(*, actor: Actor, enrolled: Enrolled, host: str, port: int) -> Shard:
    known = Shard.objects.filter(name=enrolled.shard).first()
    if known is not None and known.public_key != enrolled.public_key:
        raise Conflict(
            f"Another node is enrolled as shard {enrolled.shard!r} (fingerprint "
            f"{known.fingerprint}); this one has {enrolled.fingerprint}. Was it started with "
            "another RUN_DIR? Bring that back, rename the node, or use an empty registry."
        )
    facts = {
        "fingerprint": enrolled.fingerprint,
        "instance": enrolled.instance,
        "system_identifier": enrolled.system_identifier,
    }
    shard = known or Shard(name=enrolled.shard, alias=enrolled.shard)
    shard.public_key = enrolled.public_key
    shard.bundle_seen = enrolled.bundle
    shard.last_seen = timezone.now()
    for name, value in facts.items():
        setattr(shard, name, value)
    shard.save()
    ShardNode.objects.update_or_create(
        shard=shard, role=ShardNode.Role.PRIMARY, defaults={"host": host, "port": port}
    )
    audit.record(
        actor=actor,
        action="shard.register",
        target=shard.name,
        after={"host": host, "port": port, **facts},
    )
    raise_routing()
    return shard


def register_shard(
    *, actor: Actor, host: str, port: int, name: str | None = None, token: str | None = None
) -> tuple[Shard, Enrolled]:
    """Enrol the node that listens there and store it as a shard that owns nothing yet.

    Doing it again with the same node changes only where it listens.

    Raises:
        Problem: The node refuses, is another one, or its name is taken.
        NodeUnreachable: Nobody answers there.
    """
    enrolled = enrol(host=host, port=port, name=name, token=token)
    shard = _store(actor=actor, enrolled=enrolled, host=host, port=port)
    return shard, enrolled


def _open_job(kinds: Sequence[str]) -> Job | None:
    found = Job.objects.filter(kind__in=kinds, state__in=jobs.OPEN_STATES).order_by("-pk")
    return found.first()


def place_shards(*, actor: Actor, hold_rows: bool) -> Job | None:
    """Give the registered shards their buckets, or tell newcomers who owns what.

    The first map spreads the buckets evenly. Shards that hold rows are re-homed first, so that no
    map is ever published under which a row lies on a shard that does not own it.

    Returns:
        The job that does it; None when no shard is registered.
    """
    names = list(Shard.objects.filter(state__in=TRUSTED).values_list("name", flat=True))
    if not names:
        return None
    waiting = _open_job(["rehome", "publish-map"])
    if waiting is not None:
        return waiting
    epoch = shard_map.current_epoch()
    if hold_rows:
        current = shard_map.current_ranges(epoch)
        wanted = [(r.first, r.last, r.shard) for r in current] or shard_map.even_ranges(names)
        payload = {"wanted": wanted, "after_epoch": epoch}
        return jobs.create_job(actor=actor, kind="rehome", payload=payload)
    with transaction.atomic():
        if epoch == 0:
            wanted = shard_map.even_ranges(names)
            shard_map.write_map(actor=actor, wanted=wanted, after_epoch=0, reason="first map")
        return jobs.create_job(actor=actor, kind="publish-map", payload={})


def adopt_instances(
    *, actor: Actor, instances: Iterable[str], token: str | None = None
) -> Job | None:
    """Register every instance that is not registered yet, and place the shards.

    Idempotent: with all instances known and a map published, nothing happens.

    Returns:
        The job that places them, None when there was nothing to do.
    """
    addresses = [parse_instance(text) for text in instances]
    hold_rows, added = False, 0
    for host, port in addresses:
        if ShardNode.objects.filter(host=host, port=port).exists():
            continue
        _, enrolled = register_shard(actor=actor, host=host, port=port, token=token)
        hold_rows = hold_rows or enrolled.rows > 0
        added += 1
    # A start that died between registering and placing is made good by the next one.
    unplaced = Shard.objects.filter(state=Shard.State.JOINING).exists()
    if not added and not unplaced:
        return None
    # What those that wait hold is not known any more; re-homing empty shards is a mere check.
    return place_shards(actor=actor, hold_rows=hold_rows or not added)


@transaction.atomic
def note_published(*, actor: Actor, name: str, epoch: int) -> None:
    """Remember that a shard took the map; one that was joining is active from now on."""
    shard = Shard.objects.select_for_update().get(name=name)
    before = shard.state
    shard.map_epoch_seen = epoch
    if shard.state == Shard.State.JOINING:
        shard.state, shard.state_reason = Shard.State.ACTIVE, ""
    shard.save(update_fields=["map_epoch_seen", "state", "state_reason"])
    if before != shard.state:
        audit.record(
            actor=actor,
            action="shard.state",
            target=name,
            before={"state": before},
            after={"state": shard.state},
            reason=f"took map epoch {epoch}",
        )
        raise_routing()


@transaction.atomic
def change_state(
    *, actor: Actor, name: str, state: str, reason: str, allowed_from: Sequence[str]
) -> Shard:
    """Change a shard's state if it is in one of these.

    Raises:
        NotFound: No such shard.
        Conflict: It is in another state.
    """
    shard = Shard.objects.select_for_update().filter(name=name).first()
    if shard is None:
        raise NotFound(f"There is no shard {name!r}.")
    if shard.state == state:
        return shard
    if shard.state not in allowed_from:
        raise Conflict(f"Shard {name} is {shard.state}: it cannot become {state} from there.")
    before = shard.state
    shard.state, shard.state_reason = state, reason
    shard.checks_missed = 0
    shard.save(update_fields=["state", "state_reason", "checks_missed"])
    audit.record(
        actor=actor,
        action="shard.state",
        target=name,
        before={"state": before},
        after={"state": state},
        reason=reason,
    )
    raise_routing()
    return shard


def quarantine_shard(*, actor: Actor, name: str, reason: str) -> Shard:
    """Stop trusting a shard at once; its keys answer 503 until a person releases it."""
    return change_state(
        actor=actor,
        name=name,
        state=Shard.State.QUARANTINED,
        reason=reason,
        allowed_from=TRUSTED,
    )


def release_shard(*, actor: Actor, name: str, reason: str) -> Shard:
    """Trust a quarantined shard again."""
    return change_state(
        actor=actor,
        name=name,
        state=Shard.State.ACTIVE,
        reason=reason,
        allowed_from=[Shard.State.QUARANTINED],
    )


def note_health(*, name: str, facts: Mapping[str, Any] | None) -> None:
    """Remember an answer to a health check, or one missed; three missed make a shard down."""
    shard = Shard.objects.filter(name=name).first()
    if shard is None:
        return
    actor = Actor(kind="task", name="health", via="TASK")
    if facts is None:
        missed = shard.checks_missed + 1
        Shard.objects.filter(pk=shard.pk).update(checks_missed=missed)
        if missed >= CHECKS_MISSED_MAX and shard.state == Shard.State.ACTIVE:
            text = f"missed {missed} health checks"
            change_state(
                actor=actor,
                name=name,
                state=Shard.State.DOWN,
                reason=text,
                allowed_from=[Shard.State.ACTIVE],
            )
        return
    Shard.objects.filter(pk=shard.pk).update(
        checks_missed=0,
        last_seen=timezone.now(),
        bundle_seen=str(facts.get("bundle", "")),
        map_epoch_seen=int(facts.get("map_epoch") or 0),
        keyring_generation_seen=int(facts.get("keyring_generation") or 0),
    )
    if shard.state == Shard.State.DOWN:
        change_state(
            actor=actor,
            name=name,
            state=Shard.State.ACTIVE,
            reason="answers again",
            allowed_from=[Shard.State.DOWN],
        )
