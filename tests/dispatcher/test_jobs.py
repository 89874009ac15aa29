"""Jobs: each step once, whoever runs it and however often it dies."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from dispatcher_site.registry.deadline_http import NodeUnreachable
from dispatcher_site.registry.jobs.kinds import (
    LeaseLost,
    StepContext,
    StepFailed,
    UnknownJobKind,
)
from dispatcher_site.registry.jobs.runner import run_job
from dispatcher_site.registry.models import Job, JobStep, OutboxMessage
from dispatcher_site.registry.services import jobs
from dispatcher_site.trust.models import AuditEntry
from modeldefs.wire.problems import Conflict, NotFound
from tests.dispatcher.kinds import Scripted
from tests.dispatcher.making import TESTER

pytestmark = pytest.mark.django_db


class Killed(BaseException):
    """What a kill -9 looks like from inside: nothing after it runs."""


@pytest.fixture(autouse=True)
def scripted(settings: Settings) -> Iterator[type[Scripted]]:
    """Make the scripted kind known, with a clean script."""
    settings.SHARDPOINT_JOB_KINDS = {
        **settings.SHARDPOINT_JOB_KINDS,
        "scripted": "tests.dispatcher.kinds.Scripted",
    }
    Scripted.deeds, Scripted.done = {}, []
    yield Scripted
    Scripted.deeds, Scripted.done = {}, []


def plan() -> Job:
    """Return a planned job."""
    return jobs.create_job(actor=TESTER, kind="scripted", payload={})


def expire_lease(job: Job) -> None:
    """Let the time pass that a lease lasts."""
    past = timezone.now() - timedelta(seconds=1)
    Job.objects.filter(pk=job.pk).update(lease_until=past, run_after=None)


def test_a_job_is_planned_with_an_outbox_message() -> None:
    """Creating a job asks for its run in the same transaction, and is audited."""
    job = plan()

    message = OutboxMessage.objects.get()
    assert (message.task, message.payload) == ("registry.run_job", {"job_id": job.pk})
    assert AuditEntry.objects.get().action == "job.create"
    with pytest.raises(UnknownJobKind):
        jobs.create_job(actor=TESTER, kind="nonsense", payload={})


def test_a_job_runs_its_steps_in_order_once() -> None:
    """Run twice by two messages, each step ran once."""
    job = plan()

    states = [run_job(job.pk), run_job(job.pk)]

    assert states == ["done", "left alone"]
    assert Scripted.done == ["one", "two", "three"]
    job.refresh_from_db()
    assert (job.state, job.progress, job.total) == ("done", 3, 3)


def test_a_held_job_is_left_alone() -> None:
    """While one worker holds the lease, no other touches the job."""
    job = plan()
    assert jobs.claim_job(job_id=job.pk, owner="first") is not None

    assert jobs.claim_job(job_id=job.pk, owner="second") is None
    assert run_job(job.pk) == "left alone"
    assert Scripted.done == []


def test_a_killed_worker_s_job_is_carried_on() -> None:
    """After the lease ran out the next worker goes on at the step that was cut off."""
    job = plan()

    def die(context: StepContext) -> None:
        raise Killed

    Scripted.deeds = {"two": die}
    with pytest.raises(Killed):
        run_job(job.pk)
    assert run_job(job.pk) == "left alone"
    Scripted.deeds = {}
    expire_lease(job)
    assert jobs.jobs_to_carry_on() == [job.pk]

    assert run_job(job.pk) == "done"
    assert Scripted.done == ["one", "two", "three"]
    assert list(JobStep.objects.values_list("attempts", flat=True)) == [1, 2, 1]


def test_a_worker_that_lost_its_lease_changes_nothing() -> None:
    """It wakes up late, finds another in charge, and its result is dropped."""
    job = plan()

    def sleep_too_long(context: StepContext) -> None:
        Job.objects.filter(pk=job.pk).update(lease_owner="another")
        with pytest.raises(LeaseLost):
            context.check()

    Scripted.deeds = {"one": sleep_too_long}

    assert run_job(job.pk) == "lease lost"
    assert JobStep.objects.get(name="one").state == "running"


def test_what_cannot_be_reached_is_tried_again_later() -> None:
    """The lease is given back with a time to wait, and the job stays running."""
    job = plan()

    def unreachable(context: StepContext) -> None:
        raise NodeUnreachable("refused")

    Scripted.deeds = {"one": unreachable}

    assert run_job(job.pk) == "waiting"
    job.refresh_from_db()
    assert (job.state, job.lease_owner) == ("running", "")
    assert job.run_after is not None
    assert jobs.jobs_to_carry_on() == []


def test_trying_again_ends() -> None:
    """A node that never answers fails the job in the end, with the reason."""
    job = plan()

    def unreachable(context: StepContext) -> None:
        raise NodeUnreachable("refused")

    Scripted.deeds = {"one": unreachable}
    seen = []
    for _ in range(8):
        seen.append(run_job(job.pk))
        expire_lease(job)

    assert seen == ["waiting"] * 7 + ["failed"]
    job.refresh_from_db()
    assert job.error == "one: refused"


def test_a_failed_job_can_be_retried_from_its_failed_step() -> None:
    """What succeeded is not done again."""
    job = plan()

    def fail(context: StepContext) -> None:
        raise StepFailed("disk is full")

    Scripted.deeds = {"two": fail}
    assert run_job(job.pk) == "failed"
    Scripted.deeds = {}
    jobs.retry_job(actor=TESTER, job_id=job.pk)

    assert run_job(job.pk) == "done"
    assert Scripted.done == ["one", "two", "three"]
    with pytest.raises(Conflict):
        jobs.retry_job(actor=TESTER, job_id=job.pk)


def test_a_defect_fails_the_job_and_leaves_a_trace() -> None:
    """An exception that nobody expected ends in the job's error, not in an endless loop."""
    job = plan()

    def defect(context: StepContext) -> None:
        raise KeyError("x")

    Scripted.deeds = {"one": defect}

    assert run_job(job.pk) == "failed"
    job.refresh_from_db()
    assert job.error == "KeyError: 'x'"


def test_a_cancelled_job_stops_before_its_next_step() -> None:
    """Cancelling ends a running job after its current part, and a waiting one at once."""
    job = plan()

    def cancel(context: StepContext) -> None:
        jobs.cancel_job(actor=TESTER, job_id=job.pk)

    Scripted.deeds = {"one": cancel}

    assert run_job(job.pk) == "cancelled"
    assert Scripted.done == ["one"]
    with pytest.raises(Conflict):
        jobs.cancel_job(actor=TESTER, job_id=job.pk)
    with pytest.raises(NotFound):
        jobs.cancel_job(actor=TESTER, job_id=10**9)


def test_a_step_can_leave_notes_for_its_next_attempt() -> None:
    """What a step learned survives the worker."""
    job = plan()

    def note(context: StepContext) -> None:
        context.note({"rows": 3})
        context.log("three rows")

    Scripted.deeds = {"one": note}
    run_job(job.pk)

    assert JobStep.objects.get(name="one").detail == {"rows": 3}
    job.refresh_from_db()
    assert "one: three rows" in job.log
