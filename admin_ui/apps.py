"""The admin site of the cluster, as Django's default admin site."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class ShardpointAdminConfig(AdminConfig):
    """Django's admin, with our site as its default."""

    default_site = "admin_ui.site.ShardpointAdminSite"


class AdminUiConfig(AppConfig):
    """Templates, static files and model pages of the admin."""

    name = "admin_ui"
    label = "admin_ui"
