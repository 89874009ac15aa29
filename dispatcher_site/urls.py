"""Every path of the dispatcher that Django answers; data endpoints are at the root."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from dispatcher_site.api.data import data_api, description
from dispatcher_site.api.problem_pages import problem_page
from dispatcher_site.health.metrics import metrics
from dispatcher_site.health.views import healthz
from modeldefs.kit.operations import unknown_endpoints

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("control/v1/", include("dispatcher_site.api.control.urls")),
    path("healthz", healthz, name="healthz"),
    path("metrics", metrics, name="metrics"),
    path("problems/<slug:code>", problem_page, name="problem"),
    *description,
    path("", data_api.urls),
    unknown_endpoints(),
]

handler400 = "dispatcher_site.api.refusals.bad_request"
handler403 = "dispatcher_site.api.refusals.permission_denied"
handler404 = "dispatcher_site.api.refusals.not_found"
handler500 = "dispatcher_site.api.refusals.server_error"
