"""Definitions have their tables on the shards, never in the registry's database."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings


class DefinitionsLiveOnShards:
    """Refuse to create tables of definition packages here, and leave all other routing alone."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Say no for definitions and the kit, nothing for all else."""
        try:
            name = apps.get_app_config(app_label).name
        except LookupError:
            return None
        if name == "modeldefs.kit" or name in settings.SHARDPOINT_DEFINITIONS:
            return False
        return None
