"""What clients are told of an endpoint, so that they find the owner of a row by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeldefs.kit.catalog import Catalog, load_catalog
from modeldefs.kit.direct_routes import DirectRoute, KeyParameter, direct_route
from modeldefs.kit.tracing import presence_sets
from tests.unit.kit.test_catalog import SHOP, write

KEY = KeyParameter("customer_id", "bigint", is_list=False)
READS = '''
@query(order="id")
def by_any(*, customer_id: int | None = None, note: str | None = None) -> Page[Order]:
    """With the key one shard, without it all."""
    return Order.objects.given(customer_id=customer_id, note=note)

@query(order="id")
def by_some(*, customer_ids: list[int]) -> Page[Order]:
    """Always a list of keys."""
    return Order.objects.filter(customer_id__in=customer_ids)

@query(order="code")
def countries() -> Page[Country]:
    """The same on every shard."""
    return Country.objects.all()

@query(order="id")
def of_one() -> Page[Order]:
    """A key that stands in the definition."""
    return Order.objects.filter(customer_id=7)

@query(order="id")
def by_turns(*, customer_id: int | None = None, note: str | None = None) -> Page[Order]:
    """The key counts only where there is no note."""
    if note is not None:
        return Order.objects.filter(note=note)
    return Order.objects.given(customer_id=customer_id)
'''


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DirectRoute]:
    """Return what is told of each endpoint of a package."""
    folder = tmp_path_factory.mktemp("routes")
    package = write(folder, "told_routes", reads=READS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        catalog = load_catalog([SHOP, package])
    return {name: direct_route(catalog, each) for name, each in catalog.endpoints.items()}


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("by_any", DirectRoute(KEY, "scatter")),
        ("by_some", DirectRoute(KeyParameter("customer_ids", "bigint", is_list=True), None)),
        ("countries", DirectRoute(None, "reference")),
        ("of_one", DirectRoute()),
        ("by_turns", DirectRoute()),
    ],
)
def test_each_way_is_told_as_it_is(
    told: dict[str, DirectRoute], endpoint: str, expected: DirectRoute
) -> None:
    """A rule where one holds for all sets of parameters, nothing where none does."""
    assert expected == told[endpoint]


def test_a_rule_holds_for_every_set_of_parameters() -> None:
    """Of each endpoint that ships: where the rule sends a call is where its plan says."""
    catalog: Catalog = load_catalog([SHOP])
    for endpoint in catalog.endpoints.values():
        told = direct_route(catalog, endpoint)
        if endpoint.kind == "mutation":
            assert told.key is not None or endpoint.is_many
            continue
        for given in presence_sets(endpoint):
            route = catalog.plan(endpoint, given).route
            if told.key is not None and told.key.name in given:
                assert told.key.name == route.parameter
                assert route.reach == ("list" if told.key.is_list else "targeted")
            elif told.otherwise is not None:
                assert told.otherwise == route.reach


def test_the_rules_of_the_packages_files_are_used(tmp_path: Path) -> None:
    """A batch may go to several shards, so nothing is told of it."""
    text = '''
    @mutation(many="add_orders")
    def add_order(*, customer_id: int, id: int) -> Order:
        """Add one."""
        return Order.objects.create(customer_id=customer_id, id=id)
    '''
    package = write(tmp_path, "told_batches", writes=text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        catalog = load_catalog([SHOP, package])
    ways = {name: direct_route(catalog, catalog.endpoints[name]) for name in
            ("add_order", "add_orders")}  # fmt: skip

    assert ways == {"add_order": DirectRoute(KEY), "add_orders": DirectRoute()}
