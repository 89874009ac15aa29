"""The catalog means the same in every process that has the same files."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from modeldefs.kit.catalog import Catalog, bundle_id, load_catalog, shard_key_parameter
from modeldefs.kit.errors import DefinitionError
from tests.unit.kit.planning import code_of

SHOP = "tests.definitions_shop"
HEAD = """
from django.db import models
from modeldefs import *
from tests.definitions_shop.shop import Country, Customer, Order
"""


@pytest.fixture
def catalog() -> Catalog:
    """Return the shop's catalog."""
    return load_catalog([SHOP])


def write(folder: Path, package: str, **modules: str) -> str:
    """Write a package of definitions and return its name."""
    root = folder / package
    root.mkdir()
    (root / "__init__.py").write_text('"""A package."""\n')
    for name, text in modules.items():
        (root / f"{name}.py").write_text(HEAD + dedent(text))
    return package


def test_names_and_numbers(catalog: Catalog) -> None:
    """Endpoints are numbered in the order of their names, models are known by name."""
    assert ["customers", "orders_of", "rename", "spent", "top_countries"] == [
        endpoint.name for endpoint in catalog.by_number
    ]
    assert [0, 1, 2, 3, 4] == [endpoint.number for endpoint in catalog.by_number]
    assert ["Country", "Customer", "Order", "Parcel"] == list(catalog.models)


def test_loading_again_gives_the_same(catalog: Catalog) -> None:
    """Loading twice gives equal numbers, plans and bundle."""
    again = load_catalog([SHOP])

    assert catalog.bundle_id == again.bundle_id
    assert catalog.plans == again.plans
    assert [e.number for e in catalog.by_number] == [e.number for e in again.by_number]


def test_models_in_the_order_of_their_relations(catalog: Catalog) -> None:
    """A model comes after those it points to."""
    assert ["Country", "Customer", "Order", "Parcel"] == [
        model.__name__ for model in catalog.in_fk_order()
    ]


def test_classification(catalog: Catalog) -> None:
    """Where each set of parameters goes can be seen."""
    endpoints = catalog.endpoints

    assert {
        "": "scatter",
        "id": "targeted",
        "name": "scatter",
        "id, name": "targeted",
    } == catalog.classification(endpoints["customers"])
    assert {"customer": "list"} == catalog.classification(endpoints["orders_of"])
    assert {"id": "targeted"} == catalog.classification(endpoints["rename"])


def test_unknown_model_lists_the_known(catalog: Catalog) -> None:
    """Asking for a model that is not there names those that are."""
    with pytest.raises(KeyError, match="there are Country, Customer, Order, Parcel"):
        catalog.model("Nobody")


def test_bundle_changes_with_one_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle id is the hash of the definitions: one byte more is another bundle."""
    monkeypatch.syspath_prepend(str(tmp_path))
    package = write(tmp_path, "bundled", first="")
    before, source = bundle_id([package]), tmp_path / "bundled" / "first.py"
    text = source.read_text()
    source.write_text(text + "#")
    changed = bundle_id([package])
    source.write_text(text)

    assert before != changed
    assert before == bundle_id([package])
    assert before != bundle_id([package, SHOP])
    assert (64, set()) == (len(before), set(before) - set("0123456789abcdef"))


REFUSED = [
    ("missing", "no-such-package", None),
    (
        "twice",
        "doubled-name",
        {
            "a": "@query\ndef same(*, id: int) -> Page[Customer]: return Customer.objects.all()",
            "b": "@query\ndef same(*, id: int) -> Page[Customer]: return Customer.objects.all()",
        },
    ),
    (
        "outside",
        "foreign-model",
        {
            "a": """
            class Loose(models.Model):
                class Meta:
                    app_label = "outside"
            """
        },
    ),
    (
        "keyless",
        "mutation-without-key",
        {"a": "@mutation(on=Customer)\ndef put(*, name: str) -> bool: return True"},
    ),
    (
        "optional",
        "optional-shard-key",
        {"a": "@mutation(on=Customer)\ndef put(*, id: int | None = None) -> bool: return True"},
    ),
    (
        "listed",
        "optional-shard-key",
        {"a": "@mutation(on=Customer)\ndef put(*, id: list[int]) -> bool: return True"},
    ),
    (
        "shared",
        "reference-mutation",
        {"a": "@mutation(on=Country)\ndef put(*, code: str) -> bool: return True"},
    ),
    (
        "changing",
        "changing-trace",
        {
            "a": """
            import itertools
            COUNT = itertools.count()
            @query
            def moving(*, id: int) -> Page[Customer]:
                return Customer.objects.filter(points=next(COUNT))
            """
        },
    ),
    (
        "counted",
        "counted-primary-key",
        {
            "a": """
            class Numbered(Document):
                class Meta:
                    app_label = "counted"
                class Shard:
                    key = "id"
            """
        },
    ),
    (
        "rarely",
        "not-colocated",
        {
            "a": """
            from tests.definitions_shop.shop import Parcel
            @query
            def parcels(*, price: int | None = None) -> Page[Parcel]:
                rows = Parcel.objects.all()
                return rows if price is None else rows.filter(order__price=price)
            """
        },
    ),
]


@pytest.mark.parametrize("package, code, modules", REFUSED, ids=[case[0] for case in REFUSED])
def test_refused_packages(
    package: str,
    code: str,
    modules: dict[str, str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A package that cannot be served is refused as it is loaded, before any request."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"definitions_{package}"
    for known in [modules] if modules else []:
        write(tmp_path, name, **known)

    assert code == code_of(lambda: load_catalog([SHOP, name]))


def test_refusal_names_place_and_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed is where, the code, what is wrong, and what to write instead."""
    monkeypatch.syspath_prepend(str(tmp_path))
    body = "@query\ndef lost(*, id: int) -> Page[Customer]: return Customer.objects.distinct()"
    package = write(tmp_path, "definitions_told", a=body)
    with pytest.raises(DefinitionError) as refused:
        load_catalog([SHOP, package])

    assert (
        "definitions_told.a.lost (given id): [distinct] the read uses distinct() Fix: use "
        "Exists(...) instead of the join that doubles rows, or @aggregate and group"
    ) == str(refused.value)


def test_shard_key_parameter(catalog: Catalog) -> None:
    """A mutation runs where the row is that its key parameter names."""
    assert "id" == shard_key_parameter(catalog.endpoints["rename"])
