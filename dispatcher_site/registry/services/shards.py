"""Shards: enrolled, published to, trusted or not.

What a shard proved when it enrolled is kept, and every later answer is held against it. Only
security evidence quarantines a shard by itself, and only a person releases it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from dispatcher_site.registry.clients import client_for
from dispatcher_site.registry.models import BucketRange, Job, Shard, ShardNode
from dispatcher_site.registry.services import jobs, shard_map
from dispatcher_site.registry.services.counters import raise_routing
from dispatcher_site.registry.services.enrolling import Enrolled, document_rows, enrol
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


def _holds_rows(name: str, rows: int) -> Conflict:
    return Conflict(
        f"Shard {name} holds {rows} rows and the cluster already serves: load them with "
        "`manage.py dump` and `manage.py load` instead, or start it empty. Joining with rows "
        "comes with rebalancing."
    )


def _newcomers() -> list[Shard]:
    """Return the shards that wait to join a cluster that serves: the map names them nowhere."""
    epoch = shard_map.current_epoch()
    if epoch == 0:
        return []
    owners = BucketRange.objects.filter(epoch_id=epoch).values("shard_id")
    waiting = Shard.objects.filter(state=Shard.State.JOINING).exclude(pk__in=owners)
    return list(waiting.order_by("name"))


def newcomer_refusal(*, shard: Shard) -> Conflict | None:
    """Return why the shard may not join now, None when it may or serves already.

    Rows of a newcomer lie in buckets that others own: nobody would see them, and under the map of
    a cluster that serves they cannot be moved yet. What it holds is counted now.

    Raises:
        NodeUnreachable: Its node does not answer.
        Problem: Its node refuses.
    """
    if shard not in _newcomers():
        return None
    rows = document_rows(client_for(shard).counts())
    if not rows:
        return None
    refusal = _holds_rows(shard.name, rows)
    Shard.objects.filter(pk=shard.pk).update(state_reason=str(refusal))
    return refusal


def _refuse_newcomers(newcomers: Iterable[Shard]) -> None:
    for shard in newcomers:
        refusal = newcomer_refusal(shard=shard)
        if refusal is not None:
            raise refusal


def _enrol(*, host: str, port: int, name: str | None, token: str | None) -> Enrolled:
    enrolled = enrol(host=host, port=port, name=name, token=token)
    if enrolled.document_rows and shard_map.current_epoch():
        known = Shard.objects.filter(name=enrolled.shard).first()
        if known is None or known in _newcomers():
            raise _holds_rows(enrolled.shard, enrolled.document_rows)
    return enrolled


def register_shard(
    *, actor: Actor, host: str, port: int, name: str | None = None, token: str | None = None
) -> tuple[Shard, Enrolled]:
    """Enrol the node that listens there and store it as a shard that owns nothing yet.

    Doing it again with the same node changes only where it listens.

    Raises:
        Conflict: It holds rows and the cluster serves already; nothing is stored.
        Problem: The node refuses, is another one, or its name is taken.
        NodeUnreachable: Nobody answers there.
    """
    enrolled = _enrol(host=host, port=port, name=name, token=token)
    shard = _store(actor=actor, enrolled=enrolled, host=host, port=port)
    return shard, enrolled


def _open_job(kinds: Sequence[str]) -> Job | None:
    found = Job.objects.filter(kind__in=kinds, state__in=jobs.OPEN_STATES).order_by("-pk")
    return found.first()


def place_shards(*, actor: Actor, hold_rows: bool) -> Job | None:
    """Give the registered shards their buckets, or tell newcomers who owns what.

    The first map spreads the buckets evenly. Shards that hold rows are re-homed first, so that no
    map is ever published under which a row lies on a shard that does not own it. Later only empty
    shards join.

    Returns:
        The job that does it; None when no shard is registered.

    Raises:
        Conflict: The cluster serves already, and every shard that waits to join holds rows.
    """
    names = list(Shard.objects.filter(state__in=TRUSTED).values_list("name", flat=True))
    if not names:
        return None
    waiting = _open_job(["rehome", "publish-map"])
    if waiting is not None:
        return waiting
    epoch = shard_map.current_epoch()
    if hold_rows and epoch == 0:
        payload = {"wanted": shard_map.even_ranges(names)}
        return jobs.create_job(actor=actor, kind="rehome", payload=payload)
    if hold_rows:
        refusals = [newcomer_refusal(shard=shard) for shard in _newcomers()]
        found = [refusal for refusal in refusals if refusal is not None]
        if found and len(found) == len(refusals):
            raise found[0]
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

    Raises:
        Conflict: The cluster serves already and one of them holds rows; none was registered.
    """
    addresses = list(dict.fromkeys(parse_instance(text) for text in instances))
    fresh = [
        (host, port, _enrol(host=host, port=port, name=None, token=token))
        for host, port in addresses
        if not ShardNode.objects.filter(host=host, port=port).exists()
    ]
    # A start that died between registering and placing is made good by the next one.
    waiting = _waiting(addresses)
    _refuse_newcomers(waiting)
    for host, port, enrolled in fresh:
        _store(actor=actor, enrolled=enrolled, host=host, port=port)
    if not fresh and not waiting:
        return None
    # What those that wait hold is not known any more; re-homing empty shards is a mere check.
    hold_rows = not fresh or any(enrolled.rows > 0 for _, _, enrolled in fresh)
    return place_shards(actor=actor, hold_rows=hold_rows)


def _waiting(addresses: Sequence[tuple[str, int]]) -> list[Shard]:
    """Return the shards that joining is asked for: all of a first map, later those named.

    One that was refused and is named no more is left alone, so that the others can start.
    """
    joining = Shard.objects.filter(state=Shard.State.JOINING).order_by("name")
    if shard_map.current_epoch() == 0 or not addresses:
        return list(joining)
    return [
        shard
        for shard in joining
        if any((node.host, node.port) in addresses for node in shard.nodes.all())
    ]


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
