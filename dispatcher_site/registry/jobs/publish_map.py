"""Job ``publish-map``: every node learns the newest map and holds the newest keyring.

Each step reads the map when it runs, so a map written meanwhile is published too; a node that
already has it says so and changes nothing. A newcomer that holds rows is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatcher_site.registry.clients import client_for
from dispatcher_site.registry.jobs.kinds import PlannedStep, StepContext, StepFailed
from dispatcher_site.registry.models import Shard, ShardNode
from dispatcher_site.registry.services import keyrings, shard_map, shards
from dispatcher_site.trust.actors import Actor

PUBLISHER = Actor(kind="task", name="publish-map", via="TASK")


def owners_now() -> list[tuple[int, int, str, str]]:
    """Return first, last, shard and URL of every range of the newest map."""
    urls = {
        node.shard.name: node.url
        for node in ShardNode.objects.filter(role=ShardNode.Role.PRIMARY).select_related("shard")
    }
    return [(r.first, r.last, r.shard, urls.get(r.shard, "")) for r in shard_map.current_ranges()]


def publish_to(shard: Shard) -> int:
    """Tell one node the newest map and hand it the keyring; return the map's epoch."""
    epoch = shard_map.current_epoch()
    ranges = shard_map.current_ranges(epoch)
    own = [(r.first, r.last, r.since) for r in ranges if r.shard == shard.name]
    client_for(shard).put_map(epoch=epoch, ranges=own, owners=owners_now())
    keyrings.publish_to(shard)
    shards.note_published(actor=PUBLISHER, name=shard.name, epoch=epoch)
    return epoch


class PublishMap:
    """Publish the newest map to every trusted shard."""

    def plan(self, payload: Mapping[str, Any]) -> list[PlannedStep]:
        """Return one step per shard."""
        names = Shard.objects.filter(state__in=shards.TRUSTED).values_list("name", flat=True)
        return [PlannedStep(f"publish to {name}", name) for name in names]

    def run(self, context: StepContext) -> None:
        """Publish to the step's shard."""
        if shard_map.current_epoch() == 0:
            raise StepFailed("there is no map yet: register shards first (manage.py shard adopt)")
        shard = shards.get_shard(name=context.step.shard)
        refusal = shards.newcomer_refusal(shard=shard)
        if refusal is not None:
            context.note({"left_out": str(refusal)})
            context.log(f"left out: {refusal}")
            return
        context.note({"epoch": publish_to(shard)})
