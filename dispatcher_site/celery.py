"""The Celery app of the control plane. Nothing here is trusted to last: leases are in Postgres."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dispatcher_site.settings")

app = Celery("shardpoint")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["dispatcher_site.registry", "dispatcher_site.health"])
