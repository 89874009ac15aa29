"""Each kind of read asks the shards that may hold its rows, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from dispatcher_site.routing.planner import Leg, RequestPlan, leg_of_key, plan_request
from dispatcher_site.routing.shard_map import ShardMap

# "foo" is in bucket 12182, "somekey" in 11058, 1 in 9842, UUID(int=7) in 6243, "" in 0.
MAP = ShardMap.of(7, [(0, 8191, "a", 2), (8192, 11999, "b", 7), (12000, 16383, "c", 5)])


def plan(
    reach: str, parameter: str | None = None, constants: Sequence[Any] = (), **values: Any
) -> RequestPlan:
    """Return the plan of a request on the map."""
    return plan_request(
        MAP,
        reach=reach,
        parameter=parameter,
        constants=constants,
        values=values,
        choose=lambda shards: shards[-1],
    )


@pytest.mark.parametrize(
    "key, leg",
    [
        ("foo", Leg("c", 12182, 5)),
        ("somekey", Leg("b", 11058, 7)),
        ("1", Leg("b", 9842, 7)),
        ("", Leg("a", 0, 2)),
        (str(UUID(int=7)), Leg("a", 6243, 2)),
    ],
)
def test_one_key_goes_to_its_owner(key: str, leg: Leg) -> None:
    """A key's canonical text decides the bucket, and the leg carries its owner's epoch."""
    assert leg == leg_of_key(MAP, key)
    assert (leg,) == plan("targeted", "id", id=key).legs


@pytest.mark.parametrize(
    "constant, leg",
    [(1, Leg("b", 9842, 7)), ("foo", Leg("c", 12182, 5)), (UUID(int=7), Leg("a", 6243, 2))],
)
def test_constant_key(constant: Any, leg: Leg) -> None:
    """A key that stands in the definition goes where the same key in a request goes."""
    assert (leg,) == plan("targeted", None, (constant,)).legs


def test_scatter_asks_every_owner_once() -> None:
    """Without a key, every shard of the map is asked, at the epoch of the map."""
    assert (Leg("a", None, 7), Leg("b", None, 7), Leg("c", None, 7)) == plan("scatter").legs


def test_reference_asks_the_chosen_one() -> None:
    """All shards hold a reference model, so one is chosen."""
    assert (Leg("c", None, 7),) == plan("reference").legs


def test_list_is_cut_to_each_owner() -> None:
    """Each owner gets its own keys, in their order, each once."""
    found = plan("list", "ids", ids=["foo", "1", "", "foo", "somekey"])

    assert (
        Leg("c", None, 7, ("ids", ["foo"])),
        Leg("b", None, 7, ("ids", ["1", "somekey"])),
        Leg("a", None, 7, ("ids", [""])),
    ) == found.legs
    assert "5 shard keys are given" == found.reason


def test_list_of_constants() -> None:
    """Constant keys choose the shards; there is no parameter to cut."""
    found = plan("list", None, (1, "somekey", "foo"))

    assert (Leg("b", None, 7), Leg("c", None, 7)) == found.legs


def test_empty_list_asks_nobody() -> None:
    """No key, no rows, no shard."""
    assert () == plan("list", "ids", ids=[]).legs
    assert () == plan("list", None, ()).legs
