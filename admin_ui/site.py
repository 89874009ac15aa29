"""The admin site: our name on it, our overview as its index."""

from __future__ import annotations

from django.contrib.admin import AdminSite


class ShardpointAdminSite(AdminSite):
    """Django's admin, headed as what it is: the cluster's."""

    site_header = "Shardpoint"
    site_title = "Shardpoint"
    index_title = "Is all well?"
    enable_nav_sidebar = True
