"""Items: one table, the same rows and the same index for us and for every peer.

Plain column types on purpose: what a peer cannot store in the same way would not be compared.
"""

from __future__ import annotations

from decimal import Decimal

from django.db import models

from modeldefs import Document, Groups, Page, aggregate, count, mutation, query


class Item(Document):
    """Something in a catalogue."""

    id = models.BigIntegerField(primary_key=True)
    category = models.TextField(db_index=True)
    name = models.TextField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.IntegerField()
    note = models.TextField()

    class Shard:
        key = "id"


@query
def get_item(*, id: int) -> Item | None:
    """One item by its id."""
    return Item.objects.filter(id=id).one()


@query(order="id", limit=100)
def items_in(*, category: str) -> Page[Item]:
    """The items of a category, a hundred by default."""
    return Item.objects.filter(category=category)


@query(order="id")
def all_items() -> Page[Item]:
    """Every item, page by page."""
    return Item.objects.all()


@aggregate
def count_by_category() -> Groups[str, int]:
    """How many items each category has."""
    return Item.objects.values("category").annotate(items=count())


@mutation(many="insert_items")
def insert_item(
    *, id: int, category: str, name: str, price: Decimal, stock: int, note: str
) -> Item:
    """Add an item."""
    return Item.objects.create(
        id=id, category=category, name=name, price=price, stock=stock, note=note
    )
