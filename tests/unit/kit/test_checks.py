"""What a model may not say, because no shard could keep it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.apps.registry import Apps
from django.db import models

from modeldefs.kit.checks import model_errors
from modeldefs.kit.errors import DefinitionError
from modeldefs.kit.models import Document, Reference, ShardOptions
from tests.definitions_shop.shop import Country, Customer, Order, Parcel
from tests.unit.kit.planning import code_of

KNOWN = {"Customer": Customer, "Order": Order, "Parcel": Parcel, "Country": Country}


def made(
    base: Any = Document,
    *,
    shard: dict[str, Any] | None = None,
    called: str = "Thing",
    **fields: Any,
) -> Any:
    """Return a model class with these fields, in a registry of its own."""
    meta = fields.pop("meta", {})
    attrs: dict[str, Any] = {
        "__module__": __name__,
        "Meta": type("Meta", (), {"app_label": "things", "apps": Apps(), **meta}),
        **fields,
    }
    if shard is None and base is Document:
        shard = {"key": "id"}
    if shard is not None:
        attrs["Shard"] = type("Shard", (), shard)
    return type(base)(called, (base,), attrs)


def number() -> models.Field[Any, Any]:
    """Return a primary key that the writer makes."""
    return models.BigIntegerField(primary_key=True)


def to(target: Any, **more: Any) -> Any:
    """Return a relation to a model."""
    return models.ForeignKey(target, models.DO_NOTHING, related_name="+", **more)


def codes(model: Any) -> list[str]:
    """Return the codes of all that is wrong with a model."""
    return [refusal.code for refusal in model_errors(model, KNOWN)]


def unique(*names: str) -> dict[str, Any]:
    """Return the Meta of a unique constraint."""
    return {"constraints": [models.UniqueConstraint(fields=list(names), name="u")]}


TEXT, NULLABLE = models.TextField, models.TextField(null=True)
CASES: list[tuple[str, list[str], Callable[[], Any]]] = [
    ("good", [], lambda: made(id=number(), name=TEXT())),
    ("counted", ["counted-primary-key"], lambda: made(id=models.BigAutoField(primary_key=True))),
    ("counted reference", ["counted-primary-key"],
     lambda: made(Reference, id=models.AutoField(primary_key=True))),
    ("unique off the key", ["unique-off-the-shard-key"],
     lambda: made(id=number(), email=TEXT(unique=True))),
    ("one to one", ["unique-off-the-shard-key"],
     lambda: made(id=number(), country=models.OneToOneField(
         Country, models.DO_NOTHING, related_name="+"))),
    ("unique together", ["unique-off-the-shard-key"],
     lambda: made(id=number(), a=TEXT(), b=TEXT(), meta={"unique_together": [("a", "b")]})),
    ("constraint", ["unique-off-the-shard-key"],
     lambda: made(id=number(), a=TEXT(), meta=unique("a"))),
    ("unique expression", ["unique-off-the-shard-key"],
     lambda: made(id=number(), a=TEXT(), meta={
         "constraints": [models.UniqueConstraint(models.F("a"), name="u")]})),
    ("unique with the key", [], lambda: made(id=number(), a=TEXT(), meta=unique("a", "id"))),
    ("unique in a reference", [], lambda: made(Reference, id=number(), a=TEXT(unique=True))),
    ("primary key off the key", [], lambda: made(shard={"key": "a"}, id=number(), a=TEXT())),
    ("nullable key", ["nullable-shard-key"],
     lambda: made(shard={"key": "a"}, id=number(), a=TEXT(null=True))),
    ("float key", ["unsupported-shard-key"],
     lambda: made(shard={"key": "a"}, id=number(), a=models.FloatField())),
    ("date key", ["unsupported-shard-key"],
     lambda: made(shard={"key": "a"}, id=number(), a=models.DateField())),
    ("uuid key", [], lambda: made(id=models.UUIDField(primary_key=True))),
    ("text key", [], lambda: made(id=models.CharField(max_length=5, primary_key=True))),
    ("no wire form", ["unsupported-field"],
     lambda: made(id=number(), a=models.Field())),
    ("many to many", ["hidden-table"],
     lambda: made(id=number(), a=models.ManyToManyField(Country, related_name="+"))),
    ("composite key", ["composite-primary-key"],
     lambda: made(shard={"key": "a"}, a=TEXT(), b=TEXT(),
                  pk=models.CompositePrimaryKey("a", "b"))),
    ("to a reference", [], lambda: made(id=number(), country=to(Country))),
    ("across shards", ["foreign-key-across-shards"],
     lambda: made(id=number(), customer=to(Customer))),
    ("across, unchecked", [],
     lambda: made(id=number(), customer=to(Customer, db_constraint=False))),
    ("with its parent", [],
     lambda: made(shard={"key": "customer"}, id=number(), customer=to(Customer))),
    ("with its parent, by another key", ["foreign-key-across-shards"],
     lambda: made(shard={"key": "order"}, id=number(), order=to(Order))),
    ("reference to a document", ["foreign-key-across-shards"],
     lambda: made(Reference, id=number(), customer=to(Customer, db_constraint=False))),
    ("colocated", [],
     lambda: made(shard={"key": "a", "colocated_with": "Customer"}, id=number(),
                  a=models.IntegerField())),
    ("colocated with nothing", ["unknown-model"],
     lambda: made(shard={"key": "id", "colocated_with": "Nothing"}, id=number())),
    ("colocated by another type", ["not-colocated"],
     lambda: made(shard={"key": "a", "colocated_with": Customer}, id=number(), a=TEXT())),
]  # fmt: skip


@pytest.mark.parametrize("case, expected, make", CASES, ids=[case for case, _, _ in CASES])
def test_models(case: str, expected: list[str], make: Callable[[], Any]) -> None:
    """Each promise that one shard cannot keep for the others is refused, and no other."""
    assert expected == codes(make()), case


def test_foreign_relation_is_refused() -> None:
    """A relation to a model that no shard has is refused."""
    kind: Any = type(models.Model)
    outside = kind(
        "Outside",
        (models.Model,),
        {
            "__module__": __name__,
            "id": number(),
            "Meta": type("Meta", (), {"app_label": "things", "apps": Apps()}),
        },
    )

    assert ["foreign-model"] == codes(made(id=number(), outside=to(outside)))


def test_inherited_tables_are_refused() -> None:
    """A model that shares a table with another has no rows of its own to place."""
    parent = made(id=number(), called="Parent", meta={"apps": Apps()})
    proxy = type(parent)(
        "Alias",
        (parent,),
        {
            "__module__": __name__,
            "Shard": type("Shard", (), {"key": "id"}),
            "Meta": type("Meta", (), {"app_label": "things", "apps": Apps(), "proxy": True}),
        },
    )

    assert "inherited-table" in codes(proxy)


DECLARATIONS: list[tuple[str, Callable[[], Any]]] = [
    ("no-shard-key", lambda: made(shard={}, id=number())),
    ("no-shard-key", lambda: made(shard={"version": 2}, id=number())),
    ("no-shard-key", lambda: made(shard={"key": "nothing"}, id=number())),
    ("no-shard-key",
     lambda: made(shard={"key": "virtual"}, id=number(), code=TEXT(), virtual=models.ForeignObject(
         Country, models.DO_NOTHING, ["code"], ["code"], related_name="+"))),
    ("reference-with-key", lambda: made(Reference, shard={"key": "id"}, id=number())),
    ("unknown-shard-option", lambda: made(shard={"key": "id", "keys": "id"}, id=number())),
    ("reserved-name", lambda: made(id=number(), bucket=models.IntegerField())),
    ("reserved-name", lambda: made(Reference, id=number(), bucket=models.IntegerField())),
]  # fmt: skip


@pytest.mark.parametrize("code, declare", DECLARATIONS)
def test_refused_declarations(code: str, declare: Callable[[], Any]) -> None:
    """A model that does not say where its rows go is refused where it is declared."""
    assert code == code_of(declare)


def test_shard_options() -> None:
    """`class Shard` is read once, and relations name their column."""
    assert ShardOptions("customer_id", 1, False, "Customer") == Order.shard
    assert ShardOptions(None, 1, True, None) == Country.shard


def test_texts_get_the_cluster_s_collation() -> None:
    """Every text column sorts by code point, also one that a plain base class brings."""

    class Named(models.Model):
        title = models.CharField(max_length=20)

        class Meta:
            abstract = True
            app_label = "things"

    class Titled(Named, Document):
        id = models.BigIntegerField(primary_key=True)
        own = models.TextField()
        other = models.TextField(db_collation="de-x-icu")

        class Meta:
            app_label = "things"
            apps = Apps()

        class Shard:
            key = "id"

    found = {f.name: f.db_collation for f in Titled._meta.fields if hasattr(f, "db_collation")}

    assert {"title": "sp_text", "own": "sp_text", "other": "de-x-icu"} == found


class Kind(models.TextChoices):
    """Kinds of customers."""

    NEW = "somekey", "New"


def test_bucket_is_computed_from_the_key() -> None:
    """The stored bucket is that of the key, whatever type or attribute the writer gave."""
    field = Customer._meta.get_field("bucket")
    keyed = made(shard={"key": "kind"}, id=number(), kind=TEXT())
    kind_bucket = keyed._meta.get_field("bucket").pre_save(keyed(id=1, kind=Kind.NEW), True)

    assert 9842 == field.pre_save(Customer(id=1), True)
    assert 9842 == field.pre_save(Customer(id="1", bucket=7), True)
    assert 9842 == Order._meta.get_field("bucket").pre_save(Order(customer_id=1), True)
    assert 11058 == kind_bucket


def test_shard_key_is_never_updated() -> None:
    """update() of what places a row is refused before any SQL."""
    for changes in ({"customer": 1}, {"customer_id": 1}, {"bucket": 1}):
        with pytest.raises(DefinitionError) as refused:
            Order.objects.update(**changes)

        assert "shard-key-changed" == refused.value.code
