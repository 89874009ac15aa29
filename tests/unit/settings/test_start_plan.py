"""A start is refused by its environment before anything runs."""

from __future__ import annotations

import pytest

from dispatcher_site.launching.plan import StartRefused, plan_from


def test_what_is_not_said_has_a_default() -> None:
    """Two shards, one process of each kind, a minute for each to answer."""
    plan = plan_from({}, own_shards=True)

    assert (2, 1, 1, 60) == (
        plan.shards,
        plan.front_workers,
        plan.node_workers,
        plan.start_timeout_s,
    )
    assert 300 == plan_from({"START_TIMEOUT_S": "300"}, own_shards=True).start_timeout_s


@pytest.mark.parametrize("name", ["SHARDS", "FRONT_WORKERS", "NODE_WORKERS", "START_TIMEOUT_S"])
@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "99999999"])
def test_a_number_out_of_bounds_names_its_variable(name: str, text: str) -> None:
    """Nothing is clamped."""
    with pytest.raises(StartRefused, match=name):
        plan_from({name: text}, own_shards=True)
