"""Jobs as rows: created, leased, carried on, cancelled, retried.

Whoever holds the lease may change a job, and every change asks for the lease again in its own
WHERE clause. A worker that lost it therefore changes nothing, however late it wakes up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Concat, Now
from django.utils import timezone

from dispatcher_site.registry.jobs import states
from dispatcher_site.registry.jobs.kinds import PlannedStep, job_kind
from dispatcher_site.registry.models import Job, JobStep
from dispatcher_site.registry.services.outbox import write_message
from dispatcher_site.trust import audit
from dispatcher_site.trust.actors import Actor
from modeldefs.wire.problems import Conflict, NotFound

LOG_LINE_MAX = 500
OPEN_STATES = (states.PLANNED, states.RUNNING)


def get_job(*, job_id: int) -> Job:
    """Return a job.

    Raises:
        NotFound: There is none of this number.
    """
    try:
        return Job.objects.get(pk=job_id)
    except Job.DoesNotExist:
        raise NotFound(f"There is no job {job_id}.") from None


@transaction.atomic
def create_job(*, actor: Actor, kind: str, payload: Mapping[str, Any], reason: str = "") -> Job:
    """Plan a job; a worker starts it within a second or two."""
    job_kind(kind)
    job = Job.objects.create(kind=kind, payload=dict(payload), created_by=str(actor))
    audit.record(
        actor=actor,
        action="job.create",
        target=f"{kind} #{job.pk}",
        after=dict(payload),
        reason=reason,
    )
    write_message(task="registry.run_job", payload={"job_id": job.pk})
    return job


@transaction.atomic
def cancel_job(*, actor: Actor, job_id: int, reason: str = "") -> Job:
    """Ask a job to stop: at once when nobody runs it, else after its current part.

    Raises:
        NotFound: No such job.
        Conflict: It has ended already.
    """
    job = Job.objects.select_for_update().filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    if not states.may_cancel(job.state):
        raise Conflict(f"Job {job_id} is {job.state} already.")
    job.cancel_requested = True
    job.save(update_fields=["cancel_requested"])
    audit.record(actor=actor, action="job.cancel", target=f"{job.kind} #{job_id}", reason=reason)
    write_message(task="registry.run_job", payload={"job_id": job_id})
    return job


@transaction.atomic
def retry_job(*, actor: Actor, job_id: int, reason: str = "") -> Job:
    """Let a failed job go on from the step that failed.

    Raises:
        NotFound: No such job.
        Conflict: It has not failed.
    """
    job = Job.objects.select_for_update().filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    if job.state != states.FAILED:
        raise Conflict(f"Job {job_id} is {job.state}: only a failed job can be retried.")
    advice = getattr(job_kind(job.kind), "retry_advice", "")
    if advice:
        raise Conflict(f"A {job.kind} job is not resumed after a failure: {advice}.")
    job.state = states.follow(job.state, states.PLANNED)
    job.error, job.finished, job.run_after = "", None, None
    job.save(update_fields=["state", "error", "finished", "run_after"])
    job.steps.filter(state=states.STEP_FAILED).update(
        state=states.STEP_PENDING, attempts=0, error=""
    )
    audit.record(actor=actor, action="job.retry", target=f"{job.kind} #{job_id}", reason=reason)
    write_message(task="registry.run_job", payload={"job_id": job_id})
    return job


def _lease() -> Any:
    return Now() + timedelta(seconds=states.LEASE_S)


def claim_job(*, job_id: int, owner: str) -> Job | None:
    """Take the lease and return the job; None when it has ended, waits, or another holds it."""
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=Now())
    due = Q(run_after__isnull=True) | Q(run_after__lte=Now()) | Q(cancel_requested=True)
    taken = Job.objects.filter(free, due, pk=job_id, state__in=OPEN_STATES).update(
        lease_owner=owner, lease_until=_lease(), state=states.RUNNING, run_after=None
    )
    return Job.objects.get(pk=job_id) if taken else None


def _held(job_id: int, owner: str) -> QuerySet[Job]:
    return Job.objects.filter(pk=job_id, lease_owner=owner, state=states.RUNNING)


def renew_lease(*, job_id: int, owner: str) -> bool:
    """Hold the job for another while; False when it is no longer ours."""
    return bool(_held(job_id, owner).update(lease_until=_lease()))


def holds_lease(*, job_id: int, owner: str) -> tuple[bool, bool]:
    """Return whether the job is still ours, and whether somebody asked to cancel it."""
    found = _held(job_id, owner).values_list("cancel_requested", flat=True).first()
    return found is not None, bool(found)


@transaction.atomic
def plan_steps(*, job_id: int, owner: str, steps: Sequence[PlannedStep]) -> bool:
    """Write the job's steps unless it has some; False when the lease is lost."""
    if not _held(job_id, owner).select_for_update().exists():
        return False
    if not JobStep.objects.filter(job_id=job_id).exists():
        JobStep.objects.bulk_create(
            JobStep(
                job_id=job_id,
                position=position,
                name=step.name,
                shard=step.shard,
                detail=dict(step.detail),
            )
            for position, step in enumerate(steps)
        )
        _held(job_id, owner).update(total=len(steps))
    return True


@transaction.atomic
def change_step(*, job_id: int, owner: str, position: int, **members: Any) -> bool:
    """Change a step and recount the progress; False when the lease is lost."""
    if not _held(job_id, owner).select_for_update().exists():
        return False
    JobStep.objects.filter(job_id=job_id, position=position).update(**members)
    found = JobStep.objects.filter(job_id=job_id).values_list("position", "state")
    done, total = states.progress([states.StepState(*step) for step in found])
    _held(job_id, owner).update(progress=done, total=total)
    return True


def append_log(*, job_id: int, line: str) -> None:
    """Add a line to the job's log."""
    text = " ".join(line.split())[:LOG_LINE_MAX]
    stamp = timezone.now().strftime("%H:%M:%S")
    Job.objects.filter(pk=job_id).update(log=Concat(F("log"), Value(f"{stamp} {text}\n")))


@transaction.atomic
def end_job(*, actor: Actor, job_id: int, owner: str, state: str, error: str = "") -> bool:
    """End a job for good; False when the lease is lost."""
    states.follow(states.RUNNING, state)
    ended = _held(job_id, owner).update(
        state=state, error=error, lease_owner="", lease_until=None, finished=timezone.now()
    )
    if ended:
        job = Job.objects.get(pk=job_id)
        audit.record(
            actor=actor,
            action="job.end",
            target=f"{job.kind} #{job_id}",
            after={"state": state, "error": error},
            outcome=state,
        )
    return bool(ended)


def release_job(*, job_id: int, owner: str, run_after: datetime) -> bool:
    """Give the lease back, to be taken up again not before then; False when it was lost."""
    return bool(_held(job_id, owner).update(lease_owner="", lease_until=None, run_after=run_after))


def jobs_to_carry_on(*, limit: int = 100) -> list[int]:
    """Return open jobs that nobody holds and that are due."""
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=Now())
    due = Q(run_after__isnull=True) | Q(run_after__lte=Now())
    found = Job.objects.filter(free, due, state__in=OPEN_STATES).order_by("pk")
    return list(found.values_list("pk", flat=True)[:limit])
