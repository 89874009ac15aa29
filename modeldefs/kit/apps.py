"""The Django application that loads the definitions, on the dispatcher and on every node.

Importing the models happens when Django starts; checking and tracing them happens on the first use
of ``catalog``, so that a broken definition is one clear error and not a process that cannot start.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from django.apps import AppConfig, apps
from django.conf import settings

from modeldefs.kit.catalog import Catalog, load_catalog

if TYPE_CHECKING:
    from modeldefs.kit.front import DataFront


class KitConfig(AppConfig):
    """Holds the catalog of this process."""

    name = "modeldefs.kit"
    label = "kit"
    front: DataFront | None = None  # set by the worker that serves data

    @cached_property
    def catalog(self) -> Catalog:
        """The definitions that the settings name, checked and traced."""
        return load_catalog(settings.SHARDPOINT_DEFINITIONS)


def current_catalog() -> Catalog:
    """Return the catalog of this process.

    Raises:
        DefinitionError: A definition cannot be served.
    """
    config = apps.get_app_config("kit")
    if not isinstance(config, KitConfig):
        raise TypeError("modeldefs.kit is not installed through KitConfig")
    return config.catalog


def serving_front() -> DataFront | None:
    """Return the front of this process; None if it serves no data."""
    config = apps.get_app_config("kit")
    return config.front if isinstance(config, KitConfig) else None
