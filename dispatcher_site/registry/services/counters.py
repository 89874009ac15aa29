"""Generations: numbers that rise with each change, so that pollers learn of it by one read."""

from __future__ import annotations

from django.db.models import F

from dispatcher_site.registry.models import Counter
from dispatcher_site.registry.services.outbox import write_message


def _raise(name: str) -> None:
    # The update's row lock is the order in which generations commit.
    if not Counter.objects.filter(name=name).update(value=F("value") + 1):
        Counter.objects.get_or_create(name=name)
        Counter.objects.filter(name=name).update(value=F("value") + 1)


def _value(name: str) -> int:
    found = Counter.objects.filter(name=name).values_list("value", flat=True).first()
    return found or 0


def raise_routing() -> None:
    """Tell the fronts, within a second, that map, shards or nodes changed."""
    _raise(Counter.ROUTING)


def raise_keyring() -> None:
    """Tell fronts and nodes that keys changed."""
    _raise(Counter.KEYRING)
    _raise(Counter.ROUTING)
    write_message(task="registry.publish_keyring", payload={})


def routing_generation() -> int:
    """Return the number of the last change that routing must know."""
    return _value(Counter.ROUTING)


def keyring_generation() -> int:
    """Return the number of the last change of any key."""
    return _value(Counter.KEYRING)
