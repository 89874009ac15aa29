"""``manage.py audit``: read the audit log, and check that nobody changed it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError
from django.forms.models import model_to_dict

from dispatcher_site.registry.management.control_command import UNHEALTHY, ControlCommand
from dispatcher_site.trust.audit import verify
from dispatcher_site.trust.models import AuditEntry

TAIL_DEFAULT = 20


class Command(ControlCommand):
    """Read and verify the audit log."""

    help = "Show the newest audit entries, or verify the whole chain."

    def add_acts(self, subs: Any) -> None:
        """Declare the sub-commands."""
        tail = self.act(subs, "tail", "Show the newest entries, oldest first.")
        tail.add_argument("-n", type=int, default=TAIL_DEFAULT)
        self.act(subs, "verify", "Read the whole chain; exit 3 names the first broken entry.")

    def do_tail(self, options: dict[str, Any]) -> None:
        """Show the newest entries."""
        newest = list(AuditEntry.objects.order_by("-pk")[: max(1, options["n"])])
        rows = [model_to_dict(entry) for entry in reversed(newest)]
        columns = ["id", "at", "actor_kind", "actor", "via", "action", "target", "reason"]
        self.answer(rows, columns, as_json=options["json"])

    def do_verify(self, options: dict[str, Any]) -> None:
        """Verify the chain."""
        report = verify()
        if options["json"]:
            self.stdout.write(json.dumps(asdict(report)))
        if report.broken_at is not None:
            text = f"broken at #{report.broken_at}: {report.reason}"
            raise CommandError(text, returncode=UNHEALTHY)
        self.tell(f"{report.entries} entries, unbroken; head {report.head[:16]}")
