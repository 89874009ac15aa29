"""The registry's record of what the definitions declare, for people and for checks.

The code is the truth: rows follow the catalog, are never edited by hand, and what the code no
longer declares is kept, marked inactive.
"""

from __future__ import annotations

import hashlib
import json

from django.db import models, transaction

from dispatcher_site.registry.models import Endpoint, ModelDefinition, ModelVersion
from dispatcher_site.registry.services.contracts import record_contracts
from dispatcher_site.registry.services.counters import raise_keyring
from dispatcher_site.trust import audit
from dispatcher_site.trust.actors import Actor
from modeldefs.kit.apps import current_catalog
from modeldefs.kit.catalog import Catalog


def our_catalog() -> Catalog:
    """Return the catalog of the configured definitions."""
    return current_catalog()


def schema_hash(model: type[models.Model]) -> str:
    """Return a hash of the model's columns: name, type and whether they may be null."""
    columns = [
        [f.column, f.get_internal_type(), f.null]
        for f in model._meta.get_fields(False)
        if isinstance(f, models.Field) and f.column
    ]
    return hashlib.sha256(json.dumps(sorted(columns)).encode()).hexdigest()


def _record_models(catalog: Catalog) -> None:
    for name, model in catalog.models.items():
        options = model.shard
        definition, _ = ModelDefinition.objects.update_or_create(
            name=name,
            defaults={
                "package": model.__module__,
                "shard_key": options.key or "",
                "reference": options.reference,
                "head": options.version,
                "active": True,
            },
        )
        for number in catalog.numbers(name):
            # What was decided about a version (deprecated, retired) is not the code's to undo.
            ModelVersion.objects.update_or_create(
                model=definition, number=number, defaults={"schema_hash": schema_hash(model)}
            )
    ModelDefinition.objects.exclude(name__in=list(catalog.models)).update(active=False)


def _record_endpoints(catalog: Catalog) -> None:
    for name, endpoint in catalog.endpoints.items():
        Endpoint.objects.update_or_create(
            name=name,
            defaults={
                "number": endpoint.number,
                "model_id": endpoint.model.__name__,
                "kind": endpoint.kind,
                "classification": catalog.classification(endpoint),
                "methods": list(endpoint.methods),
                "doc": endpoint.doc or "",
                "bundle": catalog.bundle_id,
                "active": True,
            },
        )
    Endpoint.objects.exclude(name__in=list(catalog.endpoints)).update(active=False)


@transaction.atomic
def record_catalog(*, actor: Actor, catalog: Catalog) -> bool:
    """Make the registry's rows say what the catalog says; False when they did already."""
    live = Endpoint.objects.filter(active=True)
    known = dict(live.values_list("name", "bundle"))
    if known and known == dict.fromkeys(catalog.endpoints, catalog.bundle_id):
        return False
    _record_models(catalog)
    _record_endpoints(catalog)
    record_contracts(catalog)
    audit.record(
        actor=actor,
        action="definitions.record",
        target=catalog.bundle_id,
        after={"models": sorted(catalog.models), "endpoints": sorted(catalog.endpoints)},
    )
    raise_keyring()  # beside the keys sites get what is known of versions and contracts
    return True
