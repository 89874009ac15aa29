"""Which shards a request must ask, and with which share of its parameters.

The class of the endpoint was decided when it was loaded; what is left is arithmetic on the map.
A list of keys is split so that each owner is asked for its own keys only. Every shard that may
hold a row of the answer is in the plan: pruning leaves out only those that cannot.

Pure: no Django, no clock, no chance, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dispatcher_site.routing.shard_map import ShardMap
from modeldefs.kit.buckets import bucket_of


class Leg(NamedTuple):
    """One shard's share of a request."""

    shard: str
    bucket: int | None  # None: the shard is asked for all that it owns
    epoch: int  # since when the bucket has this owner, or the epoch of the whole map
    replaced: tuple[str, list[str]] | None = None  # the list parameter, cut to this shard's keys


class RequestPlan(NamedTuple):
    """The legs of a request, and why they are these."""

    legs: tuple[Leg, ...]
    reason: str


def plan_request(
    shard_map: ShardMap,
    *,
    reach: str,
    parameter: str | None,
    constants: Sequence[Any],
    values: Mapping[str, Any],
    choose: Callable[[Sequence[str]], str],
) -> RequestPlan:
    """Return the shards to ask.

    Args:
        shard_map: The current map.
        reach: The endpoint's class for these parameters: targeted, list, scatter or reference.
        parameter: The parameter that holds the shard key or keys, if one does.
        constants: Shard keys that stand in the definition itself.
        values: Canonical texts of the parameters by name.
        choose: Picks one of several equal shards.
    """
    if reach == "targeted":
        key = values[parameter] if parameter is not None else str(constants[0])
        return RequestPlan((leg_of_key(shard_map, key),), "the shard key is given")
    if reach == "reference":
        shard = choose(shard_map.shards)
        return RequestPlan((Leg(shard, None, shard_map.epoch),), "every shard holds all rows")
    if reach == "list":
        return _list_plan(shard_map, parameter, constants, values)
    return RequestPlan(
        tuple(Leg(shard, None, shard_map.epoch) for shard in shard_map.shards),
        "no parameter gives the shard key",
    )


def leg_of_key(shard_map: ShardMap, key: str) -> Leg:
    """Return the leg to the owner of one shard key, given as its canonical text."""
    bucket = bucket_of(key)
    owner = shard_map.owner_at(bucket)
    return Leg(owner.shard, bucket, owner.since)


def _list_plan(
    shard_map: ShardMap,
    parameter: str | None,
    constants: Sequence[Any],
    values: Mapping[str, Any],
) -> RequestPlan:
    keys = values[parameter] if parameter is not None else [str(each) for each in constants]
    by_shard: dict[str, list[str]] = {}
    for key in dict.fromkeys(keys):
        by_shard.setdefault(leg_of_key(shard_map, key).shard, []).append(key)
    legs = tuple(
        Leg(
            shard,
            None,
            shard_map.epoch,
            (parameter, own) if parameter is not None else None,
        )
        for shard, own in by_shard.items()
    )
    return RequestPlan(legs, f"{len(keys)} shard keys are given")
