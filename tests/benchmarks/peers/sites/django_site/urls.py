"""Both APIs of one site."""

from django.urls import path

from django_site import rest
from django_site.ninja_api import api

urlpatterns = [
    path("drf/items/<int:pk>", rest.OneItem.as_view()),
    path("drf/items", rest.Items.as_view()),
    path("drf/after", rest.ItemsAfter.as_view()),
    path("drf/count", rest.CountByCategory.as_view()),
    path("ninja/", api.urls),
]
