"""The items through django-ninja: sync operations with schemas."""

from decimal import Decimal

from django.db.models import Count
from django.shortcuts import get_object_or_404
from ninja import NinjaAPI, Schema

from django_site.models import Item

api = NinjaAPI(docs_url=None, openapi_url=None)


class ItemOut(Schema):
    """All columns."""

    id: int
    category: str
    name: str
    price: Decimal
    stock: int
    note: str


class CountOut(Schema):
    """One category and its number of items."""

    category: str
    items: int


@api.get("/items/{id}", response=ItemOut)
def one_item(request, id: int):
    """One item by its id."""
    return get_object_or_404(Item, id=id)


@api.get("/items", response=list[ItemOut])
def items(request, category: str, limit: int = 100):
    """The items of a category."""
    return Item.objects.filter(category=category).order_by("id")[:limit]


@api.get("/after", response=list[ItemOut])
def items_after(request, after: int, limit: int):
    """All items, page by page, by key."""
    return Item.objects.filter(id__gt=after).order_by("id")[:limit]


@api.get("/count", response=list[CountOut])
def count_by_category(request):
    """How many items each category has."""
    return list(Item.objects.values("category").annotate(items=Count("id")))


@api.post("/items", response=ItemOut)
def add_item(request, item: ItemOut):
    """Add an item."""
    return Item.objects.create(**item.dict())
