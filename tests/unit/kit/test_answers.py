"""The parts of shards become one outcome, and its cells what a client gets."""

from __future__ import annotations

from typing import Any

import msgspec

from modeldefs import Groups, aggregate, count, highest, mean, total
from modeldefs.kit.answers import groups_outcome
from modeldefs.kit.asks import Ask, Served, Shards
from modeldefs.kit.endpoints import Endpoint
from modeldefs.kit.replies import groups_json
from modeldefs.wire.calls import GroupPart
from modeldefs.wire.keys import Principal
from tests.definitions_shop.shop import Customer, Parcel
from tests.unit.kit.planning import plan_of


def answered(endpoint: Endpoint[Any, Any], *parts: list[list[Any]], limit: int = 0) -> Any:
    """Return the JSON value that these parts of the shards become."""
    plan = plan_of(endpoint)
    principal: Any = Principal.__new__(Principal)
    ask = Ask(Served(endpoint), plan, 0, {}, limit, None, principal, "r", 1000)
    outcome = groups_outcome(ask, [GroupPart(part) for part in parts], Shards(2, 2))
    return msgspec.json.decode(groups_json(ask, outcome.rows))


@aggregate(order="-n", top=2)
def by_papers() -> Groups[str, int]:
    """Parcels by what their papers say."""
    return Parcel.objects.values("papers").annotate(n=count())  # type: ignore[no-any-return]


@aggregate
def sums() -> dict[str, int]:
    """Sums of every kind."""
    return Customer.objects.totals(
        n=count(), points=total("points"), money=total("balance"), share=mean("balance"),
        score=highest("score"),
    )  # fmt: skip


@aggregate
def by_balance() -> Groups[str, int]:
    """Customers by what they have."""
    return Customer.objects.values("balance").annotate(n=count())  # type: ignore[no-any-return]


def test_json_groups_stay_json() -> None:
    """A group that is JSON leaves as JSON; the largest two are kept, ties by the group."""
    found = answered(
        by_papers, [['{"a": 1}', 2], ["null", 1]], [['{"a": 1}', 3], ['"x"', 1]], limit=2
    )

    assert [{"papers": {"a": 1}, "n": 5}, {"papers": "x", "n": 1}] == found


def test_sums_leave_the_range_of_a_column() -> None:
    """Sums of bigint are texts beyond any range, decimals keep their scale, doubles a name."""
    found = answered(
        sums,
        [[2, str(2**63), "0.10", "0.10", 2, float("inf")]],
        [[1, str(2**63), "-0.10", "-0.10", 1, 1.5]],
    )

    assert {
        "n": 3,
        "points": str(2**64),
        "money": "0.00",
        "share": "0.00000000",
        "score": "Infinity",
    } == found


def test_totals_of_nothing() -> None:
    """Nobody counted is zero, nothing added up is null."""
    empty = {"n": 0, "points": None, "money": None, "share": None, "score": None}

    assert empty == answered(sums)
    assert empty == answered(sums, [[0, None, None, None, 0, None]])


def test_decimal_groups_are_equal_by_value() -> None:
    """1.5 and 1.50 are one group, shown with the most digits that came."""
    found = answered(by_balance, [["1.5", 1], ["10.00", 1]], [["1.50", 2]])

    assert [{"balance": "1.50", "n": 3}, {"balance": "10.00", "n": 1}] == found
