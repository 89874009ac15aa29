"""Which items of a batch go to which shard.

Pure: no Django, no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dispatcher_site.routing.shard_map import ShardMap
from modeldefs.kit.buckets import bucket_of


@dataclass(slots=True)
class Group:
    """The items that one shard owns."""

    shard: str
    places: list[int] = field(default_factory=list)  # in the request, ascending
    epochs: dict[int, int] = field(default_factory=dict)  # by bucket, since when it is the shard's


def group_items(
    shard_map: ShardMap, keys: Sequence[str], places: Iterable[int] | None = None
) -> list[Group]:
    """Return the items by owner, the owner of the first one first.

    Args:
        shard_map: Who owns what.
        keys: The shard key of every item of the batch.
        places: The items to group, ascending; all of them if not given.
    """
    groups: dict[str, Group] = {}
    for place in range(len(keys)) if places is None else places:
        bucket = bucket_of(keys[place])
        shard, since = shard_map.owner_at(bucket)
        group = groups.get(shard)
        if group is None:
            group = groups[shard] = Group(shard)
        group.places.append(place)
        group.epochs[bucket] = since
    return list(groups.values())
