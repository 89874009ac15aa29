"""The paths below /control/v1/."""

from __future__ import annotations

from django.urls import path
from rest_framework.routers import APIRootView, DefaultRouter

from dispatcher_site.api.control import direct_calls, versions, views
from dispatcher_site.api.control.description import Description, OlderDescription, docs
from modeldefs.kit.described import OLDER_PATH


class ControlRoot(APIRootView):
    """The control API of this cluster: what there is, and what can be done about it."""

    resource = "root"


class ControlRouter(DefaultRouter):
    """A router whose front page is ours, and which knows no format suffixes."""

    APIRootView = ControlRoot
    include_format_suffixes = False


router = ControlRouter()
router.register("shards", views.Shards, basename="shard")
router.register("nodes", views.Nodes, basename="node")
router.register("map", views.Maps, basename="map")
router.register("models", views.Models, basename="model")
router.register("versions", versions.Versions, basename="version")
router.register("endpoints", views.Endpoints, basename="endpoint")
router.register("keys", views.Keys, basename="key")
router.register("jobs", views.Jobs, basename="job")
router.register("metrics", views.Metrics, basename="metric")
router.register("audit", views.Audit, basename="audit")

urlpatterns = [
    path("health/", views.Health.as_view(), name="health"),
    path("capabilities", direct_calls.Capabilities.as_view(), name="capabilities"),
    path("routing", direct_calls.Routing.as_view(), name="routing"),
    path("openapi.json", Description.as_view(), name="control-openapi"),
    path(OLDER_PATH, OlderDescription.as_view(), name="control-openapi-3.1"),
    path("docs", docs, name="control-docs"),
    *router.urls,
]
