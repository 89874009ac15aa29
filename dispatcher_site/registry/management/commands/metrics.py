"""``manage.py metrics``: what the endpoints did in the last minutes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.forms.models import model_to_dict
from django.utils import timezone

from dispatcher_site.health.models import EndpointMinute
from dispatcher_site.registry.management.control_command import ControlCommand

MINUTES_DEFAULT = 15
ROWS_MAX = 1_000


class Command(ControlCommand):
    """Read the roll-ups."""

    help = "Show what each endpoint did, minute by minute."

    def add_acts(self, subs: Any) -> None:
        """Declare the sub-commands."""
        tail = self.act(subs, "list", "Show the newest minutes, newest first.")
        tail.add_argument("--minutes", type=int, default=MINUTES_DEFAULT)
        tail.add_argument("--endpoint", default="")
        tail.add_argument("--site", default="", help="front, or the name of a shard")

    def do_list(self, options: dict[str, Any]) -> None:
        """Show the newest minutes."""
        since = timezone.now() - timedelta(minutes=max(1, options["minutes"]) + 1)
        found = EndpointMinute.objects.filter(minute__gte=since)
        for name in ("endpoint", "site"):
            if options[name]:
                found = found.filter(**{name: options[name]})
        rows = [model_to_dict(each, exclude=["id", "buckets"]) for each in found[:ROWS_MAX]]
        columns = [
            "minute",
            "site",
            "endpoint",
            "requests",
            "errors",
            "p50_ms",
            "p95_ms",
            "p99_ms",
        ]
        columns += ["shards_asked", "partials", "rows", "bytes_out"]
        self.answer(rows, columns, as_json=options["json"])
