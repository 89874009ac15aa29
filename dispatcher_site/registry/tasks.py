"""Celery's entrances to the registry: idempotent one-liners. What they do is in ``services``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import current_app, shared_task

from dispatcher_site.registry.jobs.runner import run_job as carry_job_on
from dispatcher_site.registry.services import jobs, keyrings, outbox

RELAY_BATCHES_MAX = 10
SWEPT_EXPIRES_S = 30


@shared_task(name="registry.run_job")
def run_job(job_id: int) -> None:
    """Carry a job on, unless another worker does."""
    carry_job_on(job_id)


@shared_task(name="registry.relay_outbox")
def relay_outbox() -> None:
    """Send what the outbox holds."""

    def send(task: str, payload: Mapping[str, Any]) -> None:
        current_app.send_task(task, kwargs=dict(payload), retry=False)

    for _ in range(RELAY_BATCHES_MAX):
        if not outbox.relay_batch(send=send):
            break


@shared_task(name="registry.sweep_jobs")
def sweep_jobs() -> None:
    """Take up jobs whose worker died, or whose wait is over."""
    for job_id in jobs.jobs_to_carry_on():
        run_job.apply_async(kwargs={"job_id": job_id}, expires=SWEPT_EXPIRES_S)


@shared_task(name="registry.publish_keyring")
def publish_keyring() -> None:
    """Hand the newest keyring to every node that has an older one."""
    keyrings.publish_keyring()


@shared_task(name="registry.forget_old_rows")
def forget_old_rows() -> None:
    """Delete what was kept long enough."""
    outbox.forget_sent()
