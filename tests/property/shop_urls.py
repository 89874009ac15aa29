"""The shop's endpoints where Django answers them."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from modeldefs.kit.catalog import load_catalog
from modeldefs.kit.operations import build_api, unknown_endpoints

CATALOG = load_catalog(["tests.definitions_shop"])
api = build_api(CATALOG)

urlpatterns: list[URLPattern | URLResolver] = [path("", api.urls), unknown_endpoints()]
handler400 = "dispatcher_site.api.refusals.bad_request"
handler404 = "dispatcher_site.api.refusals.not_found"
handler500 = "dispatcher_site.api.refusals.server_error"
