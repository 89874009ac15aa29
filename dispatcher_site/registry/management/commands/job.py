"""``manage.py job``: list, watch, start, run, cancel and retry jobs."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError

from dispatcher_site.registry.jobs import states
from dispatcher_site.registry.jobs.runner import run_job
from dispatcher_site.registry.management.control_command import (
    ERROR,
    JOB_WAIT_S,
    REFUSED,
    ControlCommand,
)
from dispatcher_site.registry.models import Job
from dispatcher_site.registry.services import jobs
from dispatcher_site.trust.actors import command_actor

COLUMNS = ["id", "kind", "state", "progress", "total", "created", "finished", "error"]
LISTED_MAX = 50
STARTED_BY_HAND = ("apply-definitions", "publish-map")


class Command(ControlCommand):
    """Manage jobs."""

    help = "List, watch, start, run, cancel and retry jobs."

    def add_acts(self, subs: Any) -> None:
        """Declare the sub-commands."""
        self.act(subs, "list", "List the newest jobs.")
        start = self.act(subs, "start", "Plan a job.")
        start.add_argument("kind", choices=STARTED_BY_HAND)
        start.add_argument("--no-wait", action="store_true")
        watch = self.act(subs, "watch", "Follow a job to its end; Ctrl-C leaves it running.")
        run = self.act(subs, "run", "Carry a job on in this process, without a worker.")
        show = self.act(subs, "show", "Show a job, its steps and its log.")
        for parser in (watch, run, show):
            parser.add_argument("id", type=int)
        for parser in (watch, start):
            parser.add_argument("--timeout", type=float, default=JOB_WAIT_S, help="seconds")
        for name, about in (
            ("cancel", "Ask a job to stop."),
            ("retry", "Let a failed job go on."),
        ):
            parser = self.act(subs, name, about)
            parser.add_argument("id", type=int)
            parser.add_argument("--reason", default="")

    def do_list(self, options: dict[str, Any]) -> None:
        """List jobs."""
        rows = [_document(job) for job in Job.objects.all()[:LISTED_MAX]]
        self.answer(rows, COLUMNS, as_json=options["json"])

    def do_start(self, options: dict[str, Any]) -> None:
        """Plan a job."""
        job = jobs.create_job(actor=command_actor(), kind=options["kind"], payload={})
        self.tell(f"job {job.pk} is planned")
        if not options["no_wait"]:
            job = self.watch(job.pk, timeout_s=options["timeout"])
        self._show(job, options)

    def do_watch(self, options: dict[str, Any]) -> None:
        """Follow a job."""
        self._show(self.watch(options["id"], timeout_s=options["timeout"]), options)

    def do_run(self, options: dict[str, Any]) -> None:
        """Carry a job on here."""
        jobs.get_job(job_id=options["id"])
        state = run_job(options["id"])
        if state == "left alone":
            raise CommandError("it has ended, waits, or a worker has it", returncode=REFUSED)
        if state != states.DONE:
            job = jobs.get_job(job_id=options["id"])
            raise CommandError(f"job {job.pk} is {job.state}: {job.error}", returncode=ERROR)
        self._show(jobs.get_job(job_id=options["id"]), options)

    def do_show(self, options: dict[str, Any]) -> None:
        """Show a job with its steps."""
        job = jobs.get_job(job_id=options["id"])
        columns = ["position", "name", "state", "attempts", "error"]
        steps = list(job.steps.values(*columns, "shard", "detail"))
        if options["json"]:
            document = {**_document(job), "steps": steps, "log": job.log}
            self.stdout.write(json.dumps(document, default=str, indent=1))
            return
        self.answer([_document(job)], COLUMNS, as_json=False)
        self.answer(steps, columns, as_json=False)
        self.stdout.write(job.log)

    def do_cancel(self, options: dict[str, Any]) -> None:
        """Ask a job to stop."""
        jobs.cancel_job(actor=command_actor(), job_id=options["id"], reason=options["reason"])
        self.tell(f"job {options['id']} will stop after its current part")

    def do_retry(self, options: dict[str, Any]) -> None:
        """Let a failed job go on."""
        jobs.retry_job(actor=command_actor(), job_id=options["id"], reason=options["reason"])
        self.tell(f"job {options['id']} is planned again")

    def _show(self, job: Job, options: dict[str, Any]) -> None:
        if options["json"]:
            self.stdout.write(json.dumps(_document(job), default=str))


def _document(job: Job) -> dict[str, Any]:
    members = ["kind", "state", "payload", "progress", "total", "created", "finished", "error"]
    return {"id": job.pk, **{name: getattr(job, name) for name in members}}
