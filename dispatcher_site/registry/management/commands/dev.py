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
    """Return the path of a read that needs no parameter, to show in the greeting."""
    reads = [
        endpoint
        for endpoint in endpoints.values()
        if endpoint.kind == "query" and not any(spec.required for spec in endpoint.parameters)
    ]
    reads.sort(key=lambda endpoint: endpoint.name != "get_user")
    return f"/{reads[0].name}?limit=3" if reads else "/docs"
