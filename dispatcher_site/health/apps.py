"""The Django app of the health."""

from __future__ import annotations

from django.apps import AppConfig


class HealthConfig(AppConfig):
    """Tables and services of the health."""

    name = "dispatcher_site.health"
    label = "health"
    verbose_name = "Health"
    default_auto_field = "django.db.models.BigAutoField"
