"""``manage.py dev``: a whole cluster on this machine, with sample data; what ``make up`` runs."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from dispatcher_site.launching.cluster import start
from dispatcher_site.launching.plan import StartRefused, plan_from
from engine.errors import EngineError
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.errors import DefinitionError


class Command(BaseCommand):
    """Start servers, shards and the front, and run them until Ctrl-C."""

    help = "run a whole cluster here: SHARDS, PORT, RUN_DIR, SHARD_URLS in the environment"
    requires_system_checks = []
    own_shards = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--logs", action="store_true", help="show the processes' logs")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the cluster."""
        del args
        try:
            catalog = current_catalog()
            plan = plan_from(os.environ, own_shards=self.own_shards)
            code = start(
                plan,
                definitions=catalog.packages,
                models=frozenset(catalog.models),
                example=example_of(catalog.endpoints),
                say=self._say,
                verbose=options["logs"],
            )
        except (StartRefused, EngineError, DefinitionError) as failure:
            raise CommandError(" ".join(str(failure).split())) from None
        if code:
            raise CommandError("the cluster stopped by itself: see its logs", returncode=code)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def example_of(endpoints: dict[str, Any]) -> str:
    """Return the path of a read to show in the greeting, one that asks for little if possible."""
    reads = [endpoint for endpoint in endpoints.values() if endpoint.kind != "mutation"]
    if not reads:
        return "/openapi.json"

    def asks(endpoint: Any) -> list[str]:
        return [spec.name for spec in endpoint.parameters if spec.required]

    reads.sort(key=lambda e: (e.name != "get_user", len(asks(e)), e.kind != "query"))
    chosen = reads[0]
    words = [f"{name}=..." for name in asks(chosen)] + ["limit=3"] * (chosen.shape == "page")
    return f"/{chosen.name}?{'&'.join(words)}" if words else f"/{chosen.name}"
