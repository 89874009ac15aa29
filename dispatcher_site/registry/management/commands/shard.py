"""``manage.py shard``: register shards, look at them, trust them again."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from dispatcher_site.health.sampling import ask, evidence_against
from dispatcher_site.registry.clients import client_for
from dispatcher_site.registry.management.control_command import (
    JOB_WAIT_S,
    UNHEALTHY,
    USAGE,
    ControlCommand,
)
from dispatcher_site.registry.models import Job, Shard
from dispatcher_site.registry.services import shard_map, shards
from dispatcher_site.registry.services.counters import keyring_generation
from dispatcher_site.trust.actors import command_actor

COLUMNS = ["name", "state", "url", "buckets", "epoch", "last_seen"]


class Command(ControlCommand):
    """Manage shards."""

    help = "List, register, adopt, check, quarantine and release shards."

    def add_acts(self, subs: Any) -> None:
        """Declare the sub-commands."""
        self.act(subs, "list", "List the shards.")
        self.act(subs, "show", "Show one shard.").add_argument("name")
        self.act(subs, "check", "Ask every shard, or one, how it is.").add_argument(
            "name", nargs="?"
        )
        register = self.act(subs, "register", "Enrol the node at HOST:PORT and place it.")
        register.add_argument("instance", metavar="HOST:PORT")
        register.add_argument("--name", help="its shard's name; asked of the node if left out")
        adopt = self.act(subs, "adopt", "Register every instance not registered yet.")
        adopt.add_argument("instances", nargs="*", metavar="HOST:PORT", help="default: INSTANCES")
        for parser in (register, adopt):
            parser.add_argument("--token", default=settings.ENVIRONMENT.join_token)
            parser.add_argument("--no-wait", action="store_true", help="leave the job running")
            parser.add_argument("--timeout", type=float, default=JOB_WAIT_S, help="seconds")
        for name, about in (
            ("quarantine", "Stop trusting a shard."),
            ("release", "Trust a quarantined shard again."),
        ):
            parser = self.act(subs, name, about)
            parser.add_argument("name")
            parser.add_argument("--reason", required=True)

    def _row(self, shard: Shard) -> dict[str, Any]:
        node = shard.nodes.filter(role="primary").first()
        owned = [r for r in shard_map.current_ranges() if r.shard == shard.name]
        return {
            "name": shard.name,
            "state": shard.state,
            "url": node.url if node else "",
            "buckets": sum(r.last - r.first + 1 for r in owned),
            "ranges": [f"{r.first}-{r.last}" for r in owned],
            "epoch": shard.map_epoch_seen,
            "fingerprint": shard.fingerprint,
            "instance": str(shard.instance),
            "bundle": shard.bundle_seen,
            "reason": shard.state_reason,
            "last_seen": shard.last_seen,
        }

    def do_list(self, options: dict[str, Any]) -> None:
        """List the shards."""
        rows = [self._row(shard) for shard in Shard.objects.all()]
        self.answer(rows, COLUMNS, as_json=options["json"])

    def do_show(self, options: dict[str, Any]) -> None:
        """Show one shard."""
        row = self._row(shards.get_shard(name=options["name"]))
        if options["json"]:
            self.stdout.write(json.dumps(row, default=str, indent=1))
            return
        for name, value in row.items():
            self.stdout.write(f"{name:12} {value}")

    def do_check(self, options: dict[str, Any]) -> None:
        """Ask shards how they are."""
        named = options["name"]
        found = [shards.get_shard(name=named)] if named else list(Shard.objects.all())
        rows = []
        for shard in found:
            answer = ask(shard.name, client_for(shard), keyring_generation())
            evidence = evidence_against(shard, answer)
            rows.append(
                {
                    "name": shard.name,
                    "healthy": not (answer.code or evidence),
                    "ms": round(answer.took_ms, 1),
                    "finding": evidence or answer.code,
                }
            )
        self.answer(rows, ["name", "healthy", "ms", "finding"], as_json=options["json"])
        if not all(row["healthy"] for row in rows):
            raise CommandError("not every shard is well", returncode=UNHEALTHY)

    def do_register(self, options: dict[str, Any]) -> None:
        """Register one node."""
        host, port = shards.parse_instance(options["instance"])
        actor = command_actor()
        shard, enrolled = shards.register_shard(
            actor=actor,
            host=host,
            port=port,
            name=options["name"],
            token=options["token"] or None,
        )
        self.tell(f"shard {shard.name} enrolled, fingerprint {shard.fingerprint}")
        job = shards.place_shards(actor=actor, hold_rows=enrolled.rows > 0)
        self._finish(job, options)

    def do_adopt(self, options: dict[str, Any]) -> None:
        """Register every instance."""
        instances = options["instances"] or list(settings.ENVIRONMENT.instances)
        if not instances and not Shard.objects.exists():
            raise CommandError("name HOST:PORT, or set INSTANCES", returncode=USAGE)
        job = shards.adopt_instances(
            actor=command_actor(), instances=instances, token=options["token"] or None
        )
        self._finish(job, options)

    def do_quarantine(self, options: dict[str, Any]) -> None:
        """Stop trusting a shard."""
        shards.quarantine_shard(
            actor=command_actor(), name=options["name"], reason=options["reason"]
        )
        self.tell(f"shard {options['name']} is quarantined")

    def do_release(self, options: dict[str, Any]) -> None:
        """Trust a shard again."""
        shards.release_shard(actor=command_actor(), name=options["name"], reason=options["reason"])
        self.tell(f"shard {options['name']} is active")

    def _finish(self, job: Job | None, options: dict[str, Any]) -> None:
        if job is None:
            self.tell("every shard is registered and placed")
        elif options["no_wait"]:
            self.tell(f"job {job.pk} {job.kind} is planned (manage.py job watch {job.pk})")
        else:
            self.watch(job.pk, timeout_s=options["timeout"])
        if options["json"]:
            self.stdout.write(json.dumps({"job": job.pk if job else None}))
