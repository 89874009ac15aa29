"""Carrying a job on: take its lease, do its open steps in order, give it back.

Any worker may run any job at any time and more than once. A thread renews the lease while a step
works; when that fails the step learns of it at its next ``check`` and stops. What cannot be
reached is tried again later by whoever comes first, what cannot succeed fails the job.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from dispatcher_site.registry.deadline_http import NodeUnreachable
from dispatcher_site.registry.jobs import states
from dispatcher_site.registry.jobs.kinds import (
    JobCancelled,
    JobKind,
    LeaseLost,
    StepContext,
    StepFailed,
    job_kind,
)
from dispatcher_site.registry.models import Job, JobStep
from dispatcher_site.registry.services import jobs
from dispatcher_site.trust.actors import Actor
from modeldefs.wire.problems import Problem

log = logging.getLogger("shardpoint.jobs")

RUNNER = Actor(kind="task", name="job-runner", via="TASK")


def runner_name() -> str:
    """Return a name for this run that no other run ever has."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:12]}"


@contextmanager
def _lease_kept(job_id: int, owner: str) -> Iterator[threading.Event]:
    """Renew the lease in the background; the event is set when it was lost."""
    lost, ended = threading.Event(), threading.Event()

    def keep() -> None:
        try:
            while not ended.wait(states.LEASE_RENEWED_EVERY_S):
                if not jobs.renew_lease(job_id=job_id, owner=owner):
                    lost.set()
                    return
        except Exception:
            log.exception("job.lease_renewal_failed", extra={"job": job_id})
            lost.set()
        finally:
            connection.close()

    keeper = threading.Thread(target=keep, name=f"lease-{job_id}", daemon=True)
    keeper.start()
    try:
        yield lost
    finally:
        ended.set()
        keeper.join()


def run_job(job_id: int, *, owner: str | None = None) -> str:
    """Carry a job on as far as it goes now, and return the state it is left in.

    A job that has ended, waits, or is held by another is left alone: a doubled message is nothing.
    """
    owner = owner or runner_name()
    job = jobs.claim_job(job_id=job_id, owner=owner)
    if job is None:
        return "left alone"
    with _lease_kept(job_id, owner) as lost:
        try:
            return _carry_on(job, owner, lost)
        except LeaseLost:
            log.warning("job.lease_lost", extra={"job": job_id})
            return "lease lost"


def _carry_on(job: Job, owner: str, lost: threading.Event) -> str:
    def check() -> None:
        if lost.is_set():
            raise LeaseLost
        held, cancelled = jobs.holds_lease(job_id=job.pk, owner=owner)
        if not held:
            raise LeaseLost
        if cancelled:
            raise JobCancelled

    try:
        return _step_through(job, job_kind(job.kind), owner, check)
    except JobCancelled:
        return _end(job, owner, states.CANCELLED, "cancelled on request")
    except (StepFailed, Problem) as failure:
        return _end(job, owner, states.FAILED, str(failure))
    except LeaseLost:
        raise
    except Exception as failure:
        log.exception("job.defect", extra={"job": job.pk})
        return _end(job, owner, states.FAILED, f"{type(failure).__name__}: {failure}")


def _step_through(job: Job, kind: JobKind, owner: str, check: Callable[[], None]) -> str:
    check()
    if not job.steps.exists():
        jobs.plan_steps(job_id=job.pk, owner=owner, steps=kind.plan(job.payload))
    while True:
        check()
        found = [states.StepState(*s) for s in job.steps.values_list("position", "state")]
        position = states.next_position(found)
        if position is None:
            return _end(job, owner, states.DONE)
        waits = _run_step(job, kind, owner, position, check)
        if waits is not None:
            later = timezone.now() + timedelta(seconds=waits)
            jobs.release_job(job_id=job.pk, owner=owner, run_after=later)
            return "waiting"


def _run_step(
    job: Job, kind: JobKind, owner: str, position: int, check: Callable[[], None]
) -> float | None:
    """Do one step; return the seconds to wait when it could not be done now."""
    step = JobStep.objects.get(job=job, position=position)
    step.attempts += 1

    def change(**members: Any) -> None:
        if not jobs.change_step(job_id=job.pk, owner=owner, position=position, **members):
            raise LeaseLost

    def note(detail: Mapping[str, Any]) -> None:
        step.detail = {**step.detail, **detail}
        change(detail=step.detail)

    def write(line: str) -> None:
        jobs.append_log(job_id=job.pk, line=f"{step.name}: {line}")

    change(state=states.STEP_RUNNING, attempts=step.attempts, error="")
    context = StepContext(job, step, check, write, note, job.payload)
    try:
        kind.run(context)
    except (NodeUnreachable, Problem) as failure:
        waits = states.retry_after_s(step.attempts)
        retryable = isinstance(failure, NodeUnreachable) or failure.retryable
        change(state=states.STEP_FAILED, error=str(failure))
        write(f"attempt {step.attempts}: {failure}")
        if not retryable or waits is None:
            raise StepFailed(f"{step.name}: {failure}") from failure
        return waits
    except StepFailed as failure:
        change(state=states.STEP_FAILED, error=str(failure))
        raise
    change(state=states.STEP_DONE)
    return None


def _end(job: Job, owner: str, state: str, error: str = "") -> str:
    if not jobs.end_job(actor=RUNNER, job_id=job.pk, owner=owner, state=state, error=error):
        raise LeaseLost
    jobs.append_log(job_id=job.pk, line=f"{state} {error}".strip())
    return state
