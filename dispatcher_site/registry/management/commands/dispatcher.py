"""``manage.py dispatcher``: the dispatcher without shards of its own.

    INSTANCES='127.0.0.1:8080;127.0.0.1:8081' manage.py dispatcher 8000

registers shards that were started by hand, here or on other machines.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from dispatcher_site.registry.management.commands import dev


class Command(dev.Command):
    """Start the registry, the broker and the front, and run them until Ctrl-C."""

    help = "run a dispatcher for the shards that INSTANCES names"
    own_shards = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        super().add_arguments(parser)
        parser.add_argument("port", nargs="?", type=int, help="port of the front")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the dispatcher."""
        if options.get("port"):
            os.environ["PORT"] = str(options["port"])
        super().handle(*args, **options)
