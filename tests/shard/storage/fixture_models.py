"""Small models for tests of a shard's storage, in registries of their own.

Each call makes the models anew, so a test can have two states of the same definitions.
"""

from __future__ import annotations

from typing import Any

import django
from django.apps import apps
from django.apps.registry import Apps
from django.db import models

if not apps.ready:
    django.setup()

from modeldefs.kit.models import Document, Reference

LABEL = "fixture"


def make_model(
    name: str, fields: dict[str, models.Field[Any, Any]], *, key: str | None, **meta: Any
) -> Any:
    """Return a model class; a reference model when it has no key."""
    attrs: dict[str, Any] = {
        "__module__": __name__,
        "Meta": type("Meta", (), {"app_label": LABEL, "apps": Apps(), **meta}),
        **fields,
    }
    if key is not None:
        attrs["Shard"] = type("Shard", (), {"key": key})
    kind: Any = type(Document)
    return kind(name, (Document if key is not None else Reference,), attrs)


def person(**more: models.Field[Any, Any]) -> Any:
    """Return a document model keyed by its id."""
    return make_model(
        "Person",
        {
            "id": models.BigIntegerField(primary_key=True),
            "name": models.TextField(),
            "country": models.TextField(db_index=True),
            "born": models.DateField(null=True),
            **more,
        },
        key="id",
    )


def country() -> Any:
    """Return a reference model."""
    return make_model(
        "Country",
        {"code": models.TextField(primary_key=True), "name": models.TextField()},
        key=None,
    )
