"""The data endpoints of the cluster as a ninja API: OpenAPI, docs, and a road through Django."""

from __future__ import annotations

from django.contrib.admin.views.decorators import staff_member_required

from modeldefs.kit.apps import current_catalog
from modeldefs.kit.operations import build_api

data_api = build_api(
    current_catalog(), title="Shardpoint", docs_decorator=staff_member_required, docs_url="/docs"
)
