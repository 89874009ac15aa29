"""``manage.py bootstrap``: the steps of a first start that need the registry. All are repeatable.

bootstrap registry   migrate, record the definitions, make the first admin
bootstrap shards     register INSTANCES and wait until they serve
bootstrap key        make an API key for everything; JSON on stdout
"""

from __future__ import annotations

import json
import os
import time
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from dispatcher_site.registry.jobs.states import DONE, FAILED
from dispatcher_site.registry.models import Job
from dispatcher_site.registry.services.catalog import record_catalog
from dispatcher_site.registry.services.keys import create_key
from dispatcher_site.registry.services.shards import adopt_instances
from dispatcher_site.trust.actors import command_actor
from engine.run_dir import RunDir
from modeldefs.kit.apps import current_catalog
from modeldefs.wire.problems import Problem

JOB_TIMEOUT_S = 600.0
POLL_S = 0.1
MANY_STEPS = 4  # fewer are over before anybody reads that they began
ADMIN = "admin"


class Command(BaseCommand):
    """The steps of a first start."""

    help = "registry | shards | key"
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the steps."""
        parser.add_argument("step", choices=["registry", "shards", "key"])

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one step."""
        del args
        try:
            getattr(self, f"_{options['step']}")()
        except Problem as refusal:
            raise CommandError(str(refusal)) from None

    def _registry(self) -> None:
        call_command("migrate", verbosity=0, interactive=False)
        record_catalog(actor=command_actor(), catalog=current_catalog())
        users = get_user_model()._default_manager
        if not users.filter(username=ADMIN).exists():
            password = RunDir.from_environment(os.environ).secrets.admin_password
            users.create_superuser(ADMIN, "", password)

    def _shards(self) -> None:
        instances = [part for part in os.environ.get("INSTANCES", "").split(";") if part.strip()]
        token = os.environ.get("SHARDPOINT_JOIN_TOKEN") or None
        job = adopt_instances(actor=command_actor(), instances=instances, token=token)
        if job is not None:
            self._wait_for(job.pk)

    def _wait_for(self, job_id: int) -> None:
        end_s = time.monotonic() + JOB_TIMEOUT_S
        shown = ""
        while time.monotonic() < end_s:
            job = Job.objects.get(pk=job_id)
            line = f"{job.kind}: {job.progress} of {job.total} steps"
            if line != shown and job.total > MANY_STEPS:
                self.stderr.write(line, lambda text: text)
                shown = line
            if job.state == DONE:
                return
            if job.state == FAILED:
                raise CommandError(f"job {job_id} ({job.kind}) failed: {job.error}")
            time.sleep(POLL_S)
        raise CommandError(f"job {job_id} is not done after {JOB_TIMEOUT_S:.0f} s")

    def _key(self) -> None:
        made = create_key(
            actor=command_actor(), owner="first-start", scopes=["*"], name="first start"
        )
        self.stdout.write(json.dumps({"kid": made.key.kid, "key": made.text}))
