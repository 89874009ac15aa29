"""The outbox: tasks to send, written in the transaction of the change that asks for them.

A request never talks to the broker. The relay sends each row once it is committed; sending and
marking share a transaction, so a dead broker or relay loses nothing and at worst a task arrives
twice, which every task bears.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from dispatcher_site.registry.models import OutboxMessage

RELAY_BATCH = 100
SENT_KEPT = timedelta(days=1)
TASKS = frozenset({"registry.run_job", "registry.publish_keyring", "health.sample"})
"""What may be sent: a row naming anything else is a defect, or not ours."""


class UnknownTask(ValueError):
    """The outbox sends only the tasks it knows."""


def write_message(*, task: str, payload: Mapping[str, Any]) -> OutboxMessage:
    """Ask for a task once the surrounding transaction is committed.

    Raises:
        UnknownTask: The task is not one of ``TASKS``.
    """
    if task not in TASKS:
        raise UnknownTask(task)
    return OutboxMessage.objects.create(task=task, payload=dict(payload))


@transaction.atomic
def relay_batch(*, send: Callable[[str, Mapping[str, Any]], None]) -> int:
    """Send waiting messages, oldest first, and return how many; several relays share the work."""
    waiting = OutboxMessage.objects.filter(sent__isnull=True, task__in=TASKS).order_by("pk")
    messages = list(waiting.select_for_update(skip_locked=True)[:RELAY_BATCH])
    for message in messages:
        send(message.task, message.payload)
    OutboxMessage.objects.filter(pk__in=[m.pk for m in messages]).update(sent=timezone.now())
    return len(messages)


def forget_sent() -> int:
    """Delete messages sent more than a day ago, and return how many."""
    old = OutboxMessage.objects.filter(sent__lt=timezone.now() - SENT_KEPT)
    return old.delete()[0]
