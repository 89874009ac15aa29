"""Job ``apply-definitions``: every shard's tables become what the definitions declare.

Changing tables takes the shard's migrate login, which only this worker's machine holds
(``RUN_DIR/migrate.json``), in a process of its own: the node's code, not ours. A shard whose login
is elsewhere is compared, and the step says what to run there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from dispatcher_site.registry.clients import client_for
from dispatcher_site.registry.jobs.kinds import PlannedStep, StepContext, StepFailed
from dispatcher_site.registry.models import Shard
from dispatcher_site.registry.services import shards
from dispatcher_site.registry.services.catalog import our_catalog, record_catalog
from dispatcher_site.trust.actors import Actor

APPLIER = Actor(kind="task", name="apply-definitions", via="TASK")
APPLY_S_MAX = 3600.0
CHECK_EVERY_S = 0.5
OUTPUT_SHOWN_MAX = 2000
RECORD = "record the definitions"
# A shard's own process must choose its own settings and know none of our secrets.
HIDDEN = frozenset(
    {
        "DJANGO_SETTINGS_MODULE",
        "DATABASE_URL",
        "REDIS_URL",
        "SHARDPOINT_SECRET_KEY",
        "SHARDPOINT_PEPPER",
    }
)


def local_shards() -> frozenset[str]:
    """Return the shards whose migrate login this machine holds."""
    path = settings.ENVIRONMENT.run_dir / "migrate.json"
    try:
        return frozenset(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return frozenset()


class ApplyDefinitions:
    """Apply the definitions to every shard."""

    def plan(self, payload: Mapping[str, Any]) -> list[PlannedStep]:
        """Return one step for the registry's own record, then one per shard."""
        names = Shard.objects.filter(state__in=shards.TRUSTED).values_list("name", flat=True)
        return [PlannedStep(RECORD), *(PlannedStep(f"apply to {name}", name) for name in names)]

    def run(self, context: StepContext) -> None:
        """Record, apply or compare."""
        name = context.step.shard
        if not name:
            record_catalog(actor=APPLIER, catalog=our_catalog())
        elif name in local_shards():
            self._apply(context, name)
        else:
            self._compare(shards.get_shard(name=name))

    def _apply(self, context: StepContext, name: str) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in HIDDEN}
        command = [sys.executable, str(settings.BASE_DIR / "manage.py")]
        process = subprocess.Popen(
            [*command, "shardnode", "apply", "--name", name],
            env=environment,
            cwd=settings.BASE_DIR,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output = self._finish(context, process)
        if process.returncode != 0:
            raise StepFailed(f"shard {name}: {output or f'exit code {process.returncode}'}")
        if output:
            context.log(output)

    def _finish(self, context: StepContext, process: subprocess.Popen[str]) -> str:
        ends = time.monotonic() + APPLY_S_MAX
        while True:
            try:
                output, _ = process.communicate(timeout=CHECK_EVERY_S)
            except subprocess.TimeoutExpired:
                try:
                    context.check()
                    if time.monotonic() > ends:
                        raise StepFailed(f"not done after {APPLY_S_MAX:.0f} s")
                except BaseException:
                    # One transaction per change: what was not committed is undone by Postgres.
                    process.kill()
                    process.communicate()
                    raise
            else:
                return output.strip()[-OUTPUT_SHOWN_MAX:]

    def _compare(self, shard: Shard) -> None:
        theirs, ours = client_for(shard).schema().get("bundle"), our_catalog().bundle_id
        if theirs != ours:
            raise StepFailed(
                f"shard {shard.name} runs bundle {str(theirs)[:12]}, the dispatcher {ours[:12]}: "
                f"put the same definitions on its machine, run `manage.py shardnode apply --name "
                f"{shard.name}` there and restart its node, then retry this job"
            )
