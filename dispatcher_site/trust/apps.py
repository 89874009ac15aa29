"""The Django app of the trust."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class TrustConfig(AppConfig):
    """Tables and services of the trust."""

    name = "dispatcher_site.trust"
    label = "trust"
    verbose_name = "Trust"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Make the roles of people with the tables."""
        from dispatcher_site.trust.roles import make_roles

        post_migrate.connect(make_roles, sender=self, dispatch_uid="trust.roles")
