"""A shop: customers and their orders on one shard, parcels by UUID, countries everywhere."""

from __future__ import annotations

from django.db import models

from modeldefs import Document, Groups, Page, Reference, aggregate, count, mutation, query, total


class Country(Reference):
    """A country, on every shard."""

    code = models.TextField(primary_key=True)
    name = models.TextField()

    class Meta:
        app_label = "definitions_shop"


class Customer(Document):
    """Somebody who buys."""

    id = models.BigIntegerField(primary_key=True)
    name = models.TextField()
    nick = models.TextField(null=True)
    country = models.ForeignKey(Country, models.DO_NOTHING, related_name="+")
    balance = models.DecimalField(max_digits=12, decimal_places=2)
    points = models.BigIntegerField()
    age = models.IntegerField()
    score = models.FloatField()
    active = models.BooleanField()
    joined = models.DateTimeField()

    class Meta:
        app_label = "definitions_shop"

    class Shard:
        key = "id"


class Order(Document):
    """What a customer ordered; it lies with its customer."""

    id = models.BigIntegerField(primary_key=True)
    customer = models.ForeignKey(Customer, models.DO_NOTHING, related_name="+")
    price = models.DecimalField(max_digits=12, decimal_places=2)
    placed = models.DateTimeField()
    note = models.TextField(null=True)

    class Meta:
        app_label = "definitions_shop"

    class Shard:
        key = "customer"
        colocated_with = Customer


class Parcel(Document):
    """A box on its way, placed by its own id."""

    id = models.UUIDField(primary_key=True)
    order = models.ForeignKey(Order, models.DO_NOTHING, related_name="+", db_constraint=False)
    label = models.CharField(max_length=10)
    weight = models.PositiveSmallIntegerField()
    pieces = models.SmallIntegerField()
    worth = models.PositiveIntegerField()
    leaves = models.TimeField()
    day = models.DateField()
    takes = models.DurationField()
    seal = models.BinaryField()
    papers = models.JSONField()

    class Meta:
        app_label = "definitions_shop"

    class Shard:
        key = "id"


@query(order="name")
def customers(*, id: int | None = None, name: str | None = None) -> Page[Customer]:
    """Customers by name."""
    return Customer.objects.given(id=id, name=name)


@query
def orders_of(*, customer: list[int]) -> Page[Order]:
    """The orders of some customers."""
    return Order.objects.filter(customer_id__in=customer)


@aggregate(order="-people", top=3)
def top_countries(*, active: bool = True) -> Groups[str, int]:
    """The countries with the most customers."""
    customers = Customer.objects.filter(active=active)
    return customers.values("country_id").annotate(people=count())


@aggregate
def spent(*, customer: int | None = None) -> dict[str, int]:
    """How much was spent, and in how many orders."""
    return Order.objects.given(customer_id=customer).totals(orders=count(), spent=total("price"))


@mutation(on=Customer)
def rename(*, id: int, name: str, nick: str | None = None) -> bool:
    """Give a customer another name."""
    return Customer.objects.filter(id=id).update(name=name, nick=nick) > 0
