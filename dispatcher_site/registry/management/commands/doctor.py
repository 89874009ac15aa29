"""``manage.py doctor``: is the installation sound? Each finding comes with its fix."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from dispatcher_site.health.models import HealthSample
from dispatcher_site.registry.management.control_command import UNHEALTHY
from dispatcher_site.registry.models import Job, OutboxMessage, Shard
from dispatcher_site.registry.services import shard_map
from dispatcher_site.registry.services.catalog import our_catalog
from dispatcher_site.trust.audit import verify

SILENT_AFTER = timedelta(seconds=60)
SKEW_S_MAX = 5.0


class Finding(NamedTuple):
    """What one check found; the fix is empty when all is well."""

    subject: str
    well: bool
    fact: str
    fix: str = ""


def check_environment() -> Finding:
    """Say whether every needed setting is there."""
    missing = settings.ENVIRONMENT.missing
    return Finding(
        "environment", not missing, ", ".join(missing) or "complete", "set them, or `make up`"
    )


def check_database() -> Finding:
    """Say whether the registry's database answers and has all tables."""
    connection.ensure_connection()
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    fact = f"{len(waiting)} migrations wait" if waiting else "reached, tables current"
    return Finding("registry database", not waiting, fact, "manage.py migrate")


def check_broker() -> Finding:
    """Say whether Redis answers."""
    client = redis.Redis.from_url(
        settings.ENVIRONMENT.redis_url, socket_connect_timeout=2, socket_timeout=2
    )
    try:
        client.ping()
    finally:
        client.close()
    return Finding("broker", True, "answers")


def check_worker() -> Finding:
    """Say whether worker and beat are at work, by what they leave behind."""
    late = OutboxMessage.objects.filter(
        sent__isnull=True, created__lt=timezone.now() - SILENT_AFTER
    ).count()
    fact = f"{late} messages wait for over a minute" if late else "no message waits"
    return Finding("worker and beat", not late, fact, "start the Celery worker and beat")


def check_definitions() -> Finding:
    """Say whether the definitions load."""
    catalog = our_catalog()
    fact = f"{len(catalog.models)} models, {len(catalog.endpoints)} endpoints"
    return Finding("definitions", bool(catalog.models), fact, "SHARDPOINT_DEFINITIONS")


def check_shards() -> Finding:
    """Say whether all shards are active, seen lately, and on the newest map."""
    epoch = shard_map.current_epoch()
    ill = [
        f"{s.name} {s.state if s.state != 'active' else f'has map {s.map_epoch_seen}'}"
        for s in Shard.objects.exclude(state="removed")
        if s.state != "active" or s.map_epoch_seen < epoch
    ]
    count = Shard.objects.exclude(state="removed").count()
    fact = ", ".join(ill) or f"{count} active, map epoch {epoch}"
    return Finding("shards", bool(count) and not ill, fact, "manage.py shard check")


def check_watch() -> Finding:
    """Say whether health checks run."""
    newest = HealthSample.objects.order_by("-at").first()
    silent = newest is None or newest.at < timezone.now() - SILENT_AFTER
    fact = f"last check {newest.at:%H:%M:%S} UTC" if newest else "never ran"
    return Finding("health checks", not silent, fact, "start the Celery worker and beat")


def check_clock() -> Finding:
    """Say whether this clock and the database's agree."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        row = cursor.fetchone()
    skew = abs(time.time() - float(row[0])) if row else 0.0
    return Finding("clocks", skew < SKEW_S_MAX, f"{skew:.1f} s apart", "synchronise them (NTP)")


def check_jobs() -> Finding:
    """Say whether a job failed and was not retried."""
    since = timezone.now() - timedelta(days=1)
    failed = Job.objects.filter(state=Job.State.FAILED, finished__gt=since)
    ids = ", ".join(f"#{job.pk} {job.kind}" for job in failed[:5])
    return Finding("jobs", not ids, ids or "none failed today", "manage.py job show ID")


def check_audit() -> Finding:
    """Say whether the audit chain is whole."""
    report = verify()
    broken = report.broken_at is not None
    fact = f"broken at #{report.broken_at}" if broken else f"{report.entries} entries, unbroken"
    return Finding("audit log", not broken, fact, "manage.py audit verify")


def check_debug() -> Finding:
    """Say whether DEBUG is off."""
    return Finding("debug", not settings.DEBUG, f"DEBUG={settings.DEBUG}", "SHARDPOINT_DEBUG=0")


CHECKS: list[tuple[str, Callable[[], Finding]]] = [
    ("environment", check_environment),
    ("registry database", check_database),
    ("broker", check_broker),
    ("worker and beat", check_worker),
    ("definitions", check_definitions),
    ("shards", check_shards),
    ("health checks", check_watch),
    ("clocks", check_clock),
    ("jobs", check_jobs),
    ("audit log", check_audit),
    ("debug", check_debug),
]


class Command(BaseCommand):
    """Examine the installation."""

    help = "Examine the installation; exit 3 when something is not well."
    requires_system_checks: Any = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--json", action="store_true", help="answer as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run every check; one that breaks is a finding, not the end."""
        findings = [_run(subject, check) for subject, check in CHECKS]
        if options["json"]:
            self.stdout.write(json.dumps([finding._asdict() for finding in findings], indent=1))
        else:
            for finding in findings:
                mark = "ok " if finding.well else "ILL"
                fix = "" if finding.well else f"  -> {finding.fix}"
                self.stdout.write(f"{mark}  {finding.subject:18} {finding.fact}{fix}")
        if not all(finding.well for finding in findings):
            raise CommandError("not all is well", returncode=UNHEALTHY)


def _run(subject: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as failure:
        text = " ".join(str(failure).split())[:200]
        return Finding(subject, False, f"{type(failure).__name__}: {text}", "repair this first")
