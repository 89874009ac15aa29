"""The outbox: what a transaction asked for is sent, whatever happens to the broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dispatcher_site.registry.models import OutboxMessage
from dispatcher_site.registry.services.outbox import (
    TASKS,
    UnknownTask,
    relay_batch,
    write_message,
)

pytestmark = pytest.mark.django_db


class Broker:
    """A broker that can be down."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Mapping[str, Any]]] = []
        self.down_after: int | None = None

    def send(self, task: str, payload: Mapping[str, Any]) -> None:
        """Take a message, or refuse the connection."""
        if self.down_after is not None and len(self.sent) >= self.down_after:
            raise ConnectionRefusedError
        self.sent.append((task, payload))


def test_messages_are_sent_once_in_order() -> None:
    """A second relay finds nothing left to send."""
    broker = Broker()
    for number in range(3):
        write_message(task="registry.run_job", payload={"job_id": number})

    assert [relay_batch(send=broker.send), relay_batch(send=broker.send)] == [3, 0]
    assert [payload["job_id"] for _, payload in broker.sent] == [0, 1, 2]


def test_a_broker_that_dies_loses_nothing() -> None:
    """Messages of a broken batch are all sent again: twice at worst, never not at all."""
    broker = Broker()
    broker.down_after = 1
    for number in range(3):
        write_message(task="registry.run_job", payload={"job_id": number})

    with pytest.raises(ConnectionRefusedError):
        relay_batch(send=broker.send)
    assert OutboxMessage.objects.filter(sent__isnull=True).count() == 3
    broker.down_after = None
    relay_batch(send=broker.send)

    assert {payload["job_id"] for _, payload in broker.sent} == {0, 1, 2}


def test_only_known_tasks_are_sent() -> None:
    """A row that names another task is neither written nor relayed."""
    with pytest.raises(UnknownTask):
        write_message(task="os.system", payload={})
    OutboxMessage.objects.create(task="os.system", payload={})

    assert relay_batch(send=Broker().send) == 0


def test_every_task_the_outbox_knows_exists() -> None:
    """No message waits for a task that nobody defined."""
    from dispatcher_site.celery import app

    app.loader.import_default_modules()

    assert set(app.tasks) >= TASKS
