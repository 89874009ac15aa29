"""The Django app of the trust."""

from __future__ import annotations

from django.apps import AppConfig


class TrustConfig(AppConfig):
    """Tables and services of the trust."""

    name = "dispatcher_site.trust"
    label = "trust"
    verbose_name = "Trust"
    default_auto_field = "django.db.models.BigAutoField"
