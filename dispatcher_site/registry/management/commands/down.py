"""``manage.py down``: stop the cluster of this RUN_DIR, from another shell."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from engine.errors import EngineError
from engine.run_dir import RunDir
from engine.supervisor import stop_running


class Command(BaseCommand):
    """Stop everything that runs in RUN_DIR and wait until it has."""

    help = "stop the cluster of this RUN_DIR"
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Stop the cluster."""
        del args, options
        try:
            stopped = stop_running(RunDir.from_environment(os.environ))
        except EngineError as failure:
            raise CommandError(" ".join(str(failure).split())) from None
        self.stdout.write("stopped" if stopped else "nothing was running")
