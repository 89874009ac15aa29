"""What all commands of operators share: sub-commands, tables or JSON, and exit codes.

0 fine · 1 error · 2 usage · 3 checked, unhealthy · 4 no such thing · 5 not confirmed · 6 refused ·
7 shard node unreachable · 8 partly done · 130 interrupted. Results go to stdout, all else to
stderr; nothing is coloured.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from dispatcher_site.registry.deadline_http import NodeUnreachable
from dispatcher_site.registry.jobs import states
from dispatcher_site.registry.models import Job
from dispatcher_site.registry.services.jobs import get_job
from modeldefs.wire.problems import Problem

ERROR, USAGE, UNHEALTHY, NO_SUCH, NOT_CONFIRMED, REFUSED, UNREACHABLE, PARTLY = range(1, 9)
WATCH_EVERY_S = 0.5
JOB_WAIT_S = 600.0

_EXIT_OF_STATUS: Mapping[int, int] = {
    400: USAGE, 401: REFUSED, 403: REFUSED, 404: NO_SUCH, 409: REFUSED, 502: UNREACHABLE,
    503: UNREACHABLE,
}  # fmt: skip

SubParsers = _SubParsersAction  # argparse has no public name for it


class ControlCommand(BaseCommand):
    """A command with sub-commands; each is a method named ``do_<sub-command>``."""

    requires_system_checks: Any = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the sub-commands."""
        subs = parser.add_subparsers(dest="act", required=True, metavar="ACT")
        self.add_acts(subs)

    def add_acts(self, subs: Any) -> None:
        """Declare each sub-command with ``self.act``."""
        raise NotImplementedError

    def act(self, subs: Any, name: str, about: str) -> ArgumentParser:
        """Declare one sub-command that can answer as JSON."""
        parser: ArgumentParser = subs.add_parser(name, help=about, description=about)
        parser.add_argument("--json", action="store_true", help="answer as JSON")
        return parser

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the sub-command and turn what stops it into one line and an exit code."""
        deed: Callable[[dict[str, Any]], None] = getattr(self, f"do_{options['act']}")
        try:
            deed(options)
        except Problem as problem:
            code = _EXIT_OF_STATUS.get(problem.status, ERROR)
            details = "; ".join(f"{e.parameter or ''} {e.detail}".strip() for e in problem.errors)
            raise CommandError(details or str(problem), returncode=code) from None
        except NodeUnreachable as failure:
            raise CommandError(f"no answer: {failure}", returncode=UNREACHABLE) from None
        except (OperationalError, ImproperlyConfigured) as failure:
            text = " ".join(str(failure).split())
            raise CommandError(text, returncode=ERROR) from None

    def tell(self, line: str) -> None:
        """Say something to the person, not to the pipe."""
        self.stderr.write(line, lambda text: text)

    def answer(
        self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool
    ) -> None:
        """Write rows to stdout: as JSON, or as a plain table."""
        if as_json:
            self.stdout.write(json.dumps(list(rows), default=str, indent=1))
            return
        texts = [[_text(row.get(name)) for name in columns] for row in rows]
        widths = [
            max(len(name), *(len(line[i]) for line in texts)) if texts else len(name)
            for i, name in enumerate(columns)
        ]
        for line in [[name.upper() for name in columns], *texts]:
            padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
            self.stdout.write("  ".join(padded).rstrip())

    def watch(self, job_id: int, *, timeout_s: float = JOB_WAIT_S) -> Job:
        """Follow a job to its end, showing its progress on a terminal.

        Raises:
            CommandError: It failed, was cancelled, or takes longer than the timeout.
        """
        ends = time.monotonic() + timeout_s
        shown = ""
        while True:
            job = get_job(job_id=job_id)
            line = f"job {job.pk} {job.kind}: {job.state} {job.progress}/{job.total}"
            if line != shown and (sys.stderr.isatty() or job.state in states.FINAL):
                self.tell(line)
            shown = line
            if job.state == states.DONE:
                return job
            if job.state in states.FINAL:
                raise CommandError(f"job {job.pk} {job.state}: {job.error}", returncode=ERROR)
            if time.monotonic() > ends:
                raise CommandError(
                    f"job {job.pk} goes on (manage.py job watch {job.pk}); is a worker running?",
                    returncode=PARTLY,
                )
            time.sleep(WATCH_EVERY_S)


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return " ".join(str(each) for each in value) or "-"
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%d %H:%M:%S"))
    return " ".join(str(value).split())
