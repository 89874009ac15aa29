"""The roles of people: viewer, operator, admin, as groups with permissions of our own.

They are made after each migration where they are missing, and never changed afterwards: who gives
a role more, or less, keeps that. Invariant: no role but admin can raise itself, or a key, to more
than it has.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission

from dispatcher_site.trust.models import Operation

VIEW = "trust.view_ops"
DESTROY = "trust.destroy"
OPERATE_SHARD = "trust.operate_shard"
APPROVE_SHARD = "trust.approve_shard"
MOVE_BUCKET = "trust.move_bucket"
RUN_ROLLOUT = "trust.run_rollout"
MANAGE_KEY = "trust.manage_key"

_OPERATOR = ("view_ops", "ack_alert", "operate_shard", "move_bucket", "run_rollout", "manage_key")
ROLES: dict[str, tuple[str, ...]] = {
    "viewer": ("view_ops",),  # view_data is granted apart
    "operator": _OPERATOR,
    "admin": tuple(codename for codename, _ in Operation._meta.permissions),
}
# What the admin's pages ask for: Django's own permission to look at a table.
_TABLES = ("registry", "trust", "health")


def make_roles(**_: Any) -> None:
    """Make the groups that are missing; Django calls this after each migration."""
    for label in _TABLES:
        create_permissions(apps.get_app_config(label), verbosity=0)
    tables = Permission.objects.filter(
        content_type__app_label__in=_TABLES, codename__startswith="view_"
    )
    for name, codenames in ROLES.items():
        group, is_new = Group.objects.get_or_create(name=name)
        if is_new:
            own = Permission.objects.filter(
                content_type__app_label="trust", codename__in=codenames
            )
            group.permissions.set([*own, *tables.exclude(codename="view_data")])
