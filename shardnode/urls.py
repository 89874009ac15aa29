"""Paths of a shard node that its worker hands to Django: control, docs, endpoints."""

from __future__ import annotations

from importlib.util import find_spec

from django.urls import URLPattern, URLResolver, path

from modeldefs.kit.operations import unknown_endpoints
from shardnode.api import control, naming
from shardnode.api.metrics import metrics

urlpatterns: list[URLPattern | URLResolver] = [
    path("metrics", metrics),
    path("_node/name", naming.name),
    path("_node/enrol", control.enrol),
    path("_node/health", control.health),
    path("_node/meters", control.meters),
    path("_node/map", control.put_map),
    path("_node/keyring", control.put_keyring),
    path("_node/schema", control.schema),
    path("_node/counts", control.counts),
    path("_node/rows/<str:model>", control.rows),
    path("_node/rows/<str:model>/delete", control.delete),
]

if find_spec("shardnode.api.data") is not None:
    from shardnode.api.data import api, description

    urlpatterns += [*description, path("", api.urls), unknown_endpoints()]

handler400 = "shardnode.api.replies.bad_request"
handler404 = "shardnode.api.replies.not_found"
handler500 = "shardnode.api.replies.server_error"
