"""ASGI entry of a shard node: what the worker does not answer itself goes to Django here."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shardnode.settings")

from django.core.asgi import get_asgi_application

application = get_asgi_application()
