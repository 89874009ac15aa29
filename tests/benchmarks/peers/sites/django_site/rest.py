"""The items through Django REST framework: generic views and a model serializer."""

from django.db.models import Count
from rest_framework import generics, serializers
from rest_framework.response import Response
from rest_framework.views import APIView

from django_site.models import Item


class ItemSerializer(serializers.ModelSerializer):
    """All columns."""

    class Meta:
        model = Item
        fields = ["id", "category", "name", "price", "stock", "note"]


class OneItem(generics.RetrieveAPIView):
    """One item by its id."""

    queryset = Item.objects.all()
    serializer_class = ItemSerializer


class Items(generics.ListCreateAPIView):
    """The items of a category; POST adds one."""

    queryset = Item.objects.all()
    serializer_class = ItemSerializer

    def get_queryset(self):
        """Return the category's first hundred."""
        asked = self.request.query_params
        found = Item.objects.filter(category=asked["category"]).order_by("id")
        return found[: int(asked.get("limit", 100))]


class ItemsAfter(generics.ListAPIView):
    """All items, page by page, by key."""

    serializer_class = ItemSerializer

    def get_queryset(self):
        """Return the next page."""
        asked = self.request.query_params
        found = Item.objects.filter(id__gt=int(asked["after"])).order_by("id")
        return found[: int(asked["limit"])]


class CountByCategory(APIView):
    """How many items each category has."""

    def get(self, request):
        """Return one object per category."""
        return Response(list(Item.objects.values("category").annotate(items=Count("id"))))
